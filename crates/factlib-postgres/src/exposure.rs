//! Tells how far a connection is exposed to third parties, and reports it to the observer.

use std::sync::atomic::Ordering;

use super::{
    connect_info::{ConnectInfo, Host},
    stream::Stream,
};
use crate::Notice;

/// Exposure of a connection to third parties on the network, in rising order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exposure {
    /// Nobody can read it or pose as the server.
    Nothing,
    /// Somebody could pose as the server.
    Unverified,
    /// Somebody could read it.
    Unencrypted,
}

impl Exposure {
    /// Returns the exposure of a stream.
    pub fn of(stream: &Stream) -> Self {
        match stream.tls() {
            _ if stream.is_local() => Exposure::Nothing,
            None => Exposure::Unencrypted,
            Some(facts) if !facts.verified => Exposure::Unverified,
            Some(_) => Exposure::Nothing,
        }
    }

    /// Sends a notice, once for each connection string rather than at each reconnection.
    pub fn report(self, info: &ConnectInfo, host: &Host) {
        if info.warned.fetch_max(self as u8, Ordering::Relaxed) >= self as u8 {
            return;
        }
        let host = &*host.to_string();
        match self {
            Exposure::Nothing => {}
            Exposure::Unverified => info.observer().notice(&Notice::Unverified { host }),
            Exposure::Unencrypted => info.observer().notice(&Notice::Unencrypted { host }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc::Sender};

    use super::*;
    use crate::Observer;

    struct Lines(Mutex<Sender<String>>);

    impl Observer for Lines {
        fn notice(&self, notice: &Notice<'_>) {
            self.0.lock().unwrap().send(notice.to_string()).ok();
        }
    }

    #[test]
    fn each_exposure_is_reported_once_for_a_connection_string() {
        let (sender, lines) = std::sync::mpsc::channel();
        let observer = Arc::new(Lines(Mutex::new(sender)));
        let info = ConnectInfo::parse("host=db user=u").unwrap().with_observer(observer);
        let warned = |exposure: Exposure, info: &ConnectInfo| {
            exposure.report(info, &info.hosts[0]);
            lines.try_iter().collect::<Vec<_>>()
        };
        assert!(warned(Exposure::Nothing, &info).is_empty());
        assert!(warned(Exposure::Unverified, &info)[0].contains("not verified"));
        assert!(warned(Exposure::Unverified, &info.clone()).is_empty());
        // A worse exposure is reported again.
        assert!(warned(Exposure::Unencrypted, &info)[0].contains("not encrypted"));
        assert!(warned(Exposure::Unencrypted, &info).is_empty());
        assert!(warned(Exposure::Unverified, &info).is_empty());
    }
}
