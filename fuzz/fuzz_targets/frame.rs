//! Any stream of bytes: cut into frames, waited for, or refused.
#![no_main]

use factlib_postgres::frame::{first_frame_length, next_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((_, length))) = next_frame(rest) {
        assert_eq!(first_frame_length(rest), length);
        rest = &rest[length..];
    }
    assert!(first_frame_length(rest) <= (1 << 30) + 1);
});
