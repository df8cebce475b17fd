//! QuestionPace: how long the gate pauses between two questions to the server.

use std::time::Duration;

/// A standby in the same building flushes within this time.
const SHORTEST: Duration = Duration::from_millis(1);
/// Long enough to be no load, short enough not to be felt after a wait.
const LONGEST: Duration = Duration::from_millis(100);

/// The pause doubles while nothing is released.
#[derive(Debug)]
pub(super) struct QuestionPace {
    pause: Duration,
}

impl Default for QuestionPace {
    fn default() -> Self {
        QuestionPace { pause: SHORTEST }
    }
}

impl QuestionPace {
    /// Notes the first question after a rest.
    pub fn begins(&mut self) {
        self.pause = SHORTEST;
    }

    /// Notes an answer, and if it released something.
    pub fn answered(&mut self, released: bool) {
        self.pause = if released { SHORTEST } else { (self.pause * 2).min(LONGEST) };
    }

    /// Pause before the next question.
    pub fn pause(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_until_something_passes() {
        let mut pace = QuestionPace::default();
        let ms = |pace: &QuestionPace| pace.pause().as_millis();
        assert_eq!(ms(&pace), 1);
        let grown: Vec<_> = (0..8).map(|_| (pace.answered(false), ms(&pace)).1).collect();
        assert_eq!(grown, [2, 4, 8, 16, 32, 64, 100, 100]);
        pace.answered(true);
        assert_eq!(ms(&pace), 1);
    }
}
