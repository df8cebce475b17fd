//! The functions of `docs/emit-from-other-languages.md`: what they emit arrives in Kafka.

use super::{blocks, programs::emitting};
use crate::support::{Bed, records::records};

#[actix::test]
async fn what_each_language_emits_arrives() {
    let mut bed = Bed::shared("languages").await;
    // The default of the function.
    bed.config.postgres.message_prefix = "factlib".into();
    bed.config.kafka.topic_prefix = Some(bed.name.clone());
    bed.config.kafka.format = factlib::config::Format::Json;
    let client = bed.client().await;
    client.batch_execute(factlib::emit::schema::FUNCTIONS).await.expect("the functions");
    let table = "CREATE TABLE users (id text PRIMARY KEY, name text NOT NULL)";
    client.batch_execute(table).await.expect("a table");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let blocks = blocks("docs/emit-from-other-languages.md", "emit.rs");
    assert_eq!(blocks.len(), 5, "one for each driver");
    let mut ids = Vec::new();
    for (at, (language, block)) in blocks.iter().enumerate() {
        let id = format!("u{at}");
        let program = emitting(*language, block, &id);
        if language.run(&program, &bed.postgres.url_for(&bed.database)).await {
            ids.push(id);
        }
    }
    let topic = format!("{}.user", bed.name);
    let mut keys = Vec::new();
    for record in records(&bed, &topic, ids.len()).await {
        let header = |name: &str| record.header(name).map(|value| value.to_vec());
        assert_eq!(header("event_type").as_deref(), Some(&b"user.created"[..]));
        let value: serde_json::Value =
            serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        assert_eq!(value["payload"]["name"], "Zoë \"Z\"", "{value}");
        keys.push(String::from_utf8(record.key.as_deref().expect("a key").to_vec()).expect("text"));
    }
    keys.sort_unstable();
    assert_eq!(keys, ids);
    pipeline.shutdown().await.expect("a clean stop");
}
