//! The main job on real servers: facts that were committed arrive, whatever is lost on the way.

#[path = "../support/mod.rs"]
mod support;

mod backpressure;
mod commit_gate;
mod commit_gate_cost;
mod end_to_end;
mod failover;
mod idle_slot;
mod reconnection;
mod retained_wal;
mod server_move;
mod sessions;
mod standby;
#[cfg(feature = "faults")]
mod supervision;
mod timelines;
