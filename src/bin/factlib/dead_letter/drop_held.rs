//! `factlib dead-letter drop`: takes a held event out of its line without sending it.

use factlib::{Result, dead_letter::HeldLines};

use super::args::DropArgs;
use crate::{output, text::plain};

pub async fn run(args: DropArgs, lines: &HeldLines) -> Result<()> {
    let position = args.position;
    let not_held = || super::not_held(position);
    let letter = lines.letter(position).await?.ok_or_else(not_held)?;
    let aggregate = lines.aggregate_of(position).await?.ok_or_else(not_held)?;
    if !lines.remove(position).await? {
        return Err(not_held());
    }
    let (kind, id) = (plain(&aggregate.0), plain(&aggregate.1));
    let next = lines.next((&aggregate.0, &aggregate.1), 0, 1).await?;
    let left = match next.first() {
        None => format!("{kind}/{id} is not held any more"),
        Some(next) => {
            let first = next.position;
            format!("later events of {kind}/{id} are held: factlib dead-letter redrive {first}")
        }
    };
    let event_id = plain(letter.event_id());
    output::print(&format!("dropped {position}, event {event_id}; {left}\n"))
}
