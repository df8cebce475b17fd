use std::time::Duration;

use bytes::{Buf, BytesMut};
use factlib_postgres::{
    ConnectInfo, Lsn, ReplicationClient, ReplicationOptions, StandbyStatus,
    frame::{Frame, next_frame},
    pgoutput::Message,
};

/// Prints the changes that a publication has, from now on: `tail URL PUBLICATION`.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let info = ConnectInfo::parse(&arguments.next().unwrap_or_default())?;
    let publication = arguments.next().unwrap_or("my_publication".into());

    let mut client = ReplicationClient::connect(&info, Duration::from_secs(10)).await?;
    // It ends with the connection, so the server keeps nothing for us.
    let mut done = client.create_temporary_slot("tail").await?;
    let options = ReplicationOptions::new("tail").publication(publication).start_at(done);
    let mut stream = client.start(&options).await?;

    let mut buffer = BytesMut::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            read = stream.read_frame(&mut buffer) => read?,
            _ = ticks.tick() => {
                // Printed is as safe as it gets here: the server may forget it.
                let status = StandbyStatus { written: done, flushed: done, ..Default::default() };
                stream.send_status(status, true).await?;
            }
        }
        while let Some((frame, length)) = next_frame(&buffer)? {
            done = done.max(show(frame)?);
            buffer.advance(length);
        }
    }
}

/// Prints a message, and returns the position up to which nothing is missing after it.
fn show(frame: Frame<'_>) -> Result<Lsn, Box<dyn std::error::Error>> {
    match frame {
        Frame::XLogData(data) => match Message::parse(data.data)? {
            Message::Commit { end_lsn, .. } => return Ok(end_lsn),
            message => println!("{message:?}"),
        },
        Frame::Keepalive { wal_end, .. } => return Ok(wal_end),
        other => other.ensure_streaming()?,
    }
    Ok(Lsn::ZERO)
}
