//! Sends one record and waits until it is safe: `send ADDRESS TOPIC KEY VALUE`.

use std::sync::{Arc, Mutex};

use factlib_kafka::{Producer, Receipt, Refusal, Settings, Unobserved, record_batch::Record};
use tokio::sync::oneshot;

struct Answer(Mutex<Option<oneshot::Sender<Result<(), Refusal>>>>);

impl Answer {
    fn is(&self, answer: Result<(), Refusal>) {
        let sender = self.0.lock().expect("nothing panics while it is held").take();
        let _ = sender.expect("one record has one end").send(answer);
    }
}

impl Receipt for Answer {
    fn acknowledged(&self, _: &[u32]) {
        self.is(Ok(()));
    }

    fn refused(&self, _: u32, refusal: &Refusal) {
        self.is(Err(refusal.clone()));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, topic, key, value] = &words[..] else {
        return Err("ADDRESS TOPIC KEY VALUE".into());
    };
    let settings = Settings::new(vec![address.clone()]);
    let (producer, driver) = Producer::new(settings, Arc::new(Unobserved));
    tokio::spawn(driver);
    let topic = producer.topic(topic.as_str()).await?;
    let (sender, answer) = oneshot::channel();
    let receipt: Arc<dyn Receipt> = Arc::new(Answer(Mutex::new(Some(sender))));
    let timestamp_ms = std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64;
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    topic.begin().push(&Record { key, value, headers: &[], timestamp_ms }, None, &receipt, 0)?;
    match answer.await? {
        Ok(()) => println!("it is safe"),
        Err(refusal) => println!("it was refused: {refusal}"),
    }
    Ok(())
}
