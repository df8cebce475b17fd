//! Has the allocator keep some freed memory, because the relay soon needs it again.

use std::hint::black_box;

/// Size of the largest blocks that come from the heap.
const LARGEST_BLOCK: usize = 4 << 20;

/// Raises two thresholds of glibc's allocator, unless its environment variables set them.
///
/// By default, glibc returns freed memory to the system at once, and each page has to be faulted in
/// and zeroed again for the next batch: a tenth of the relay's CPU time. When a block is freed that
/// was too large for the heap, glibc takes the next ones of its size from there, and keeps twice as
/// much at the end of each heap ("dynamic mmap threshold" in mallopt(3)). Other allocators just
/// free the block; none of its pages is ever touched.
pub fn keep_freed() {
    drop(black_box(Vec::<u8>::with_capacity(LARGEST_BLOCK)));
}
