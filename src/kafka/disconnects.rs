//! Guesses the reason when a broker closes a connection without an answer.
//!
//! Kafka just hangs up on a client that speaks plaintext to a TLS listener, or that sends a request
//! before it has logged in. librdkafka mentions that only in its log, by the state of the
//! connection, and otherwise reports that all brokers are down.

use rdkafka::ClientConfig;

/// A connection that lasted no longer than this has ended at its first question.
const AT_ONCE_MS: u64 = 2_000;

/// Security protocol of the client: TLS or plaintext, with or without SASL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocol {
    tls: bool,
    sasl: bool,
}

/// A disconnect that has a likely reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disconnect {
    pub reason: String,
    pub remedy: &'static str,
}

impl Protocol {
    pub fn of(settings: &ClientConfig) -> Self {
        let protocol = settings.get("security.protocol").unwrap_or("plaintext");
        // librdkafka takes its values in any case.
        let protocol = protocol.to_ascii_lowercase();
        Protocol { tls: protocol.ends_with("ssl"), sasl: protocol.starts_with("sasl") }
    }

    /// The likely reason of a disconnect, by a line of librdkafka's log such as `[thrd:…]:
    /// kafka:9092/bootstrap: Disconnected: … (after 3ms in state APIVERSION_QUERY)`.
    pub fn explain(self, line: &str) -> Option<Disconnect> {
        let (before, after) = line.split_once(": Disconnected")?;
        let broker = before.rsplit(' ').next()?.split('/').next()?;
        // A log-in is over by then, or there was none.
        if after.contains("in state APIVERSION_QUERY") && !self.tls {
            return Some(Disconnect {
                reason: format!("{broker} closed the connection before its first answer"),
                remedy: "if the broker is up, its listener wants TLS: set kafka.tls = true, and \
                         kafka.tls_ca for an authority of your own",
            });
        }
        let lasted = after.split_once("(after ")?.1.split_once("ms in state UP")?.0;
        let lasted: u64 = lasted.parse().ok()?;
        (!self.sasl && lasted < AT_ONCE_MS).then(|| Disconnect {
            reason: format!("{broker} closed the connection at the first question"),
            remedy: "if the broker is up, its listener wants a log-in: set kafka.username and \
                     kafka.password, and kafka.sasl_mechanism",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disconnect_is_explained_by_its_state_and_what_the_client_lacks() {
        let explain = |protocol: &str, state: &str| {
            let mut settings = ClientConfig::new();
            settings.set("security.protocol", protocol);
            let line = format!(
                "[thrd:sasl_ssl://kafka:9092/bootstrap]: kafka:9092/bootstrap: Disconnected: \
                 connection closed by peer: POLLHUP (after {state})"
            );
            Protocol::of(&settings).explain(&line).map(|found| found.reason)
        };
        let (early, late) = ("3ms in state APIVERSION_QUERY", "3ms in state UP");
        let tls = Some("kafka:9092 closed the connection before its first answer".to_owned());
        let login = Some("kafka:9092 closed the connection at the first question".to_owned());
        assert_eq!(explain("plaintext", early), tls);
        assert_eq!(explain("SASL_PLAINTEXT", early), tls);
        assert_eq!(explain("plaintext", late), login);
        assert_eq!(explain("ssl", late), login);
        for (protocol, state) in [
            ("ssl", early),
            ("sasl_ssl", early),
            ("sasl_ssl", late),
            ("sasl_plaintext", late),
            ("plaintext", "2000ms in state UP"),
            ("plaintext", "3ms in state CONNECT"),
        ] {
            assert_eq!(explain(protocol, state), None, "{protocol} {state}");
        }
        let other =
            "[thrd:a]: a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        assert_eq!(Protocol { tls: false, sasl: false }.explain(other), None);
    }
}
