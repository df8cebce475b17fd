//! The README's example, as a program: a user and the fact of it, or neither.
//!
//!     cargo run --example emit -- postgresql://postgres@localhost/shop

use factlib_emit::{Fact, emit};

pub async fn create_user(
    client: &mut tokio_postgres::Client,
) -> Result<uuid::Uuid, Box<dyn std::error::Error>> {
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO users (id, name) VALUES ($1, $2)", &[&"user123", &"Ada"]).await?;
    let user = serde_json::json!({ "name": "Ada" });
    let fact = Fact::new("user", "user123", "user.created").payload_json(&user)?;
    let event_id = emit(&tx, fact).await?;
    tx.commit().await?;
    Ok(event_id)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("give a connection string")?;
    let mut client = factlib::postgres::sql::connect_url(&url).await?;
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS users (id text PRIMARY KEY, name text)")
        .await?;
    println!("event {}", create_user(&mut client).await?);
    Ok(())
}
