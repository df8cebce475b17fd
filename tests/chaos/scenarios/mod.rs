//! The scenarios, as data and as tests.

pub mod crash;
mod data;
mod failover;
mod fleet;
mod held;
mod kafka;
mod network;
mod poison;
mod position;
pub mod postgres;
mod producer;
mod refusals;
mod store;
mod topics;
mod transactions;

use std::pin::Pin;

use crate::{Ctx, Outcome};

/// A scenario: its name and its course.
pub struct Scenario {
    pub name: &'static str,
    pub run: for<'a> fn(&'a mut Ctx) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>,
}

macro_rules! scenarios {
    ($($file:ident: $($name:ident),+;)+) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[
            $($(Scenario { name: stringify!($name), run: |ctx| Box::pin($file::$name(ctx)) },)+)+
        ];

        /// The short form of each.
        mod short {
            $($(
                #[tokio::test]
                async fn $name() {
                    let mut ctx = crate::Ctx::new(stringify!($name), 1, None);
                    let outcome = super::$file::$name(&mut ctx).await;
                    println!("{outcome:?}, {} MB", ctx.peak_mb());
                    let (report, most) = (&outcome.report, outcome.most);
                    assert!(outcome.holds(), "at most {most} duplicates are explained; {report}");
                }
            )+)+
        }
    };
}

scenarios! {
    crash: killed_at_random_moments, stopped_in_mid_backlog, aborted_after_produce,
        aborted_before_save, aborted_after_save, aborted_in_mid_transaction,
        aborted_while_draining, actors_that_panic;
    kafka: broker_killed, broker_away, leader_killed, leader_of_new_topics_killed, in_sync_replicas_below_minimum,
        topic_missing, answers_lost_after_write, broker_gone_without_a_word, authorisation_denied;
    topics: leaders_of_new_topics_move, partitions_added, topic_made_again;
    producer: producer_forgotten, unclean_election;
    refusals: refused_in_mid_stream;
    held: held_and_redriven, held_in_transactions, hundred_thousand_held;
    postgres: server_stopped_hard, walsender_terminated, slot_in_use, password_changed;
    failover: standbys_promoted, standbys_waited_for;
    network: postgres_network, kafka_network;
    position: slot_dropped, slot_recreated, slot_advanced, slot_invalidated, another_cluster,
        checkpoint_older_than_slot, checkpoint_newer_than_wal, checkpoint_of_another_slot,
        checkpoint_corrupt;
    store: store_table_missing, store_table_locked, store_folder_missing,
        store_disk_full;
    transactions: transactions_killed, transactions_aborted, transaction_coordinator_killed,
        frozen_past_the_time_out, two_instances_fight, huge_transaction_cut;
    poison: poisoned_rows, poisoned_rows_and_kills, rows_that_move, table_left_the_publication;
    fleet: instances_come_and_go, instance_frozen;
    data: one_huge_transaction, odd_facts, foreign_traffic;
}
