//! Validates `[[route]]` and `kafka.unrouted`.

use super::{Check, quoted, wrong};
use crate::{
    config::{Config, Unrouted},
    routing::Routes,
};

pub(super) fn check(config: &Config) -> Check {
    Routes::new(config)?;
    let (setting, unrouted) = ("kafka.unrouted", config.kafka.unrouted);
    if config.route.is_empty() && unrouted == Unrouted::Ignore {
        let problem = "there is no [[route]], so that it would be every event";
        return wrong(setting, quoted(unrouted.as_str()), problem);
    }
    let parks = config.dead_letter.policy.parks();
    if unrouted == Unrouted::DeadLetter && !parks {
        let problem = "dead_letter.policy parks nothing";
        return wrong(setting, quoted(unrouted.as_str()), problem);
    }
    Ok(())
}
