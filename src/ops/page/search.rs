//! Searches the dead-letter topic: a text in, the letters that match it out, newest first.
//!
//! Each search reads the topic from its beginning, because the relay keeps no index of it. So only
//! one search runs at a time, and its time is limited.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Query,
};
use serde::{Deserialize, Serialize};
use slog::{Logger, o, warn};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    super::asked::Asked,
    controls::{foreign, refused},
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, Ledger, Letter, LetterFilter, LetterPosition},
};

/// Longest time of a search; somebody waits for it in front of the page.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// Maximum number of letters in an answer; all that match are counted.
const MOST_LETTERS: usize = 50;

/// Searches with the relay's own settings, one search at a time.
pub(in crate::ops) struct Search {
    config: Arc<Config>,
    /// False without Kafka, where there is no dead-letter topic.
    possible: bool,
    slot: Semaphore,
    log: Logger,
}

/// Parameters of a search.
#[derive(Deserialize)]
pub(super) struct Parameters {
    /// The text that is looked for; if empty, every letter matches.
    #[serde(default)]
    q: String,
}

/// Result of a search.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Name of the dead-letter topic.
    topic: String,
    /// False if the topic does not exist, so that nothing was ever parked in it.
    exists: bool,
    /// Number of letters that were compared.
    searched: u64,
    /// Number of letters that match.
    matching: u64,
    /// False if the time ended before the topic did.
    complete: bool,
    /// The newest letters that match, newest first.
    letters: Vec<FoundLetter>,
}

/// A letter that matches.
#[derive(Debug, Serialize)]
struct FoundLetter {
    /// Position in the topic, `partition:offset`.
    position: String,
    /// Time of parking, Unix milliseconds.
    parked_ms: i64,
    event_id: String,
    event_type: String,
    aggregate_type: Option<String>,
    aggregate_id: Option<String>,
    /// The topic that it was for; none if unknown.
    source_topic: Option<String>,
    lsn: Option<Lsn>,
    error: Option<String>,
    /// Time of the redrive, Unix milliseconds; none if it was not redriven.
    redriven_ms: Option<u64>,
}

impl Search {
    pub fn new(config: Arc<Config>, possible: bool, log: &Logger) -> Self {
        let log = log.new(o!("actor" => "search"));
        Search { config, possible, slot: Semaphore::new(1), log }
    }

    async fn find(&self, text: &str) -> Result<Found> {
        let deadline = Instant::now() + TIME_LIMIT;
        let opening = async {
            let topic = DeadLetterTopic::open(&self.config, &self.log).await?;
            Ok((topic, Ledger::open(&self.config, &self.log).await?))
        };
        let (topic, ledger) = timeout_at(deadline, opening).await.unwrap_or_else(|_| {
            let what = format!("Kafka or PostgreSQL did not answer within {TIME_LIMIT:?}");
            Err(Error::new(ErrorKind::KafkaUnavailable, what))
        })?;
        let mut found = Found { topic: self.config.dead_letter_topic(), ..Found::default() };
        let Some(mut topic) = topic else { return Ok(Found { complete: true, ..found }) };
        found.exists = true;
        let mut letters = topic.letters(LetterFilter::default());
        let mut newest: BTreeMap<(i64, LetterPosition), FoundLetter> = BTreeMap::new();
        while let Ok(letter) = timeout_at(deadline, letters.next()).await {
            let Some(letter) = letter? else {
                found.complete = true;
                break;
            };
            found.searched += 1;
            let letter_found = FoundLetter::new(&letter, &ledger);
            if letter_found.matches(text) {
                found.matching += 1;
                newest.insert((letter.parked_ms(), letter.position), letter_found);
                if newest.len() > MOST_LETTERS {
                    newest.pop_first();
                }
            }
        }
        found.letters = newest.into_values().rev().collect();
        Ok(found)
    }
}

impl FoundLetter {
    fn new(letter: &Letter, ledger: &Ledger) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        FoundLetter {
            position: letter.position.to_string(),
            parked_ms: letter.parked_ms(),
            event_id: letter.event_id().to_owned(),
            event_type: letter.event_type().to_owned(),
            aggregate_type: letter.aggregate_type(),
            aggregate_id: letter.key.as_deref().map(text),
            source_topic: letter.source_topic().map(str::to_owned),
            lsn: letter.lsn(),
            error: letter.error().map(str::to_owned),
            redriven_ms: ledger.redriven_at(letter).map(unix_ms),
        }
    }

    /// True if the text is its event id or position, or part of its topic, its type, or its
    /// aggregate's type or id; case does not matter in these.
    fn matches(&self, text: &str) -> bool {
        if text.is_empty() || text == self.event_id || text == self.position {
            return true;
        }
        let text = text.to_lowercase();
        let names = [&self.source_topic, &self.aggregate_type, &self.aggregate_id];
        let names = names.into_iter().flatten().chain([&self.event_type]);
        names.into_iter().any(|name| name.to_lowercase().contains(&text))
    }
}

/// Answers with the letters that match.
pub(super) async fn dead_letters(
    state: Asked,
    request: HttpRequest,
    Query(Parameters { q }): Query<Parameters>,
) -> HttpResponse {
    let search = &state.search;
    // Another site's page could not read the answer, and could keep the relay busy.
    if let Some(answer) = foreign(&request) {
        return answer;
    }
    if !search.possible {
        return refused(StatusCode::NOT_FOUND, "without Kafka there is no dead-letter topic");
    }
    let Ok(_running) = search.slot.try_acquire() else {
        let why = "another search is running; try again in a moment";
        return refused(StatusCode::TOO_MANY_REQUESTS, why);
    };
    match search.find(q.trim()).await {
        Ok(found) => {
            HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(found)
        }
        Err(error) => {
            warn!(search.log, "dead letters can't be searched"; "error" => %error);
            refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_matches_as_a_whole_and_a_name_in_part() {
        let letter = FoundLetter {
            position: "0:17".into(),
            parked_ms: 1,
            event_id: "01J-AbC".into(),
            event_type: "order.Placed".into(),
            aggregate_type: Some("order".into()),
            aggregate_id: Some("K-4711".into()),
            source_topic: Some("shop.order".into()),
            lsn: None,
            error: Some("MESSAGE_TOO_LARGE".into()),
            redriven_ms: None,
        };
        for text in ["", "01J-AbC", "0:17", "shop.", "SHOP.ORDER", "placed", "k-47", "order"] {
            assert!(letter.matches(text), "{text}");
        }
        for text in ["01J", "01j-abc", "0:1", "user", "MESSAGE_TOO_LARGE"] {
            assert!(!letter.matches(text), "{text}");
        }
    }
}
