//! SIGHUP: a terminal that is closed, or somebody who expects a reload.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::relayed;
use crate::support::{Bed, History, relay::Launch};

#[tokio::test]
async fn a_hang_up_drains_as_a_termination_does() {
    let bed = Bed::shared("hangup").await;
    let relay = Launch::new(&bed, Default::default()).start().await;
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;
    kill(Pid::from_raw(relay.pid().cast_signed()), Signal::SIGHUP).expect("sent");
    let (code, line) = relay.ended().await;
    assert_eq!(code, Some(0), "{line}");
    assert!(relay.output().contains("SIGHUP") && relay.output().contains("drained"), "{line}");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    bed.drop_slot().await;
}
