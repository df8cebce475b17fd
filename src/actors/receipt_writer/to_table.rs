//! Writes receipts into the table: one statement at a time, for all parts that ended meanwhile.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Trouble;
use crate::receipts::{EndedPart, ReceiptTable, ReceiptTask};

/// Events from which on a statement takes no more parts.
const STATEMENT_EVENTS: usize = 10_000;

pub(super) struct TableWriter {
    pub table: Arc<ReceiptTable>,
    pub slot: String,
    pub trouble: Trouble,
}

impl TableWriter {
    pub async fn run(mut self, mut tasks: mpsc::UnboundedReceiver<ReceiptTask>) {
        while let Some(first) = tasks.recv().await {
            let (mut parts, mut thens, mut events) = (Vec::new(), Vec::new(), 0);
            let mut next = Some(first);
            while let Some(ReceiptTask { part, then, .. }) = next.take() {
                events += part.events.len();
                parts.push(part);
                thens.push(then);
                next = (events < STATEMENT_EVENTS).then(|| tasks.try_recv().ok()).flatten();
            }
            self.write(&parts).await;
            thens.into_iter().for_each(|then| then());
        }
    }

    async fn write(&mut self, parts: &[EndedPart]) {
        loop {
            let receipts = parts.iter().flat_map(|part| part.receipts(&self.slot));
            match self.table.write(receipts).await {
                Ok(()) => return self.trouble.is_over(),
                Err(error) => self.trouble.pause(&error).await,
            }
        }
    }
}
