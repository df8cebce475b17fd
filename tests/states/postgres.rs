//! PostgreSQL's states: away, slow, refusing, and a slot that is lost or held back.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::scene::Scene;

pub async fn away(mut scene: Scene) -> Scene {
    let proxy = scene.proxied().await;
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    // Nobody listens at its port any more.
    drop(proxy);
    scene.keep(handle);
    scene
}

pub async fn away_at_the_start(mut scene: Scene) -> Scene {
    drop(scene.proxied().await);
    let handle = scene.launch().await;
    scene.keep(handle);
    scene
}

pub async fn silent(mut scene: Scene) -> Scene {
    scene.bed.config.postgres.wal_receiver_timeout = Duration::from_secs(2);
    let proxy = scene.proxied().await;
    let handle = scene.start().await;
    proxy.half_open();
    scene.keep((proxy, handle));
    scene
}

/// A process of the server that stands still, until this is dropped.
struct Still(Pid);

impl Drop for Still {
    fn drop(&mut self) {
        // It may have been ended.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

pub async fn walsender_still(mut scene: Scene) -> Scene {
    scene.on_a_server_of_its_own().await;
    scene.bed.config.postgres.wal_receiver_timeout = Duration::from_secs(2);
    let handle = scene.start().await;
    let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    let row = scene.bed.client().await.query_one(query, &[&scene.bed.name]).await;
    let pid = Pid::from_raw(row.expect("the slot").get(0));
    kill(pid, Signal::SIGSTOP).expect("it stands still");
    scene.keep((Still(pid), handle));
    scene
}

pub async fn writer_at_the_first_start(mut scene: Scene) -> Scene {
    scene.on_a_server_of_its_own().await;
    let client = scene.bed.client().await;
    let open = "CREATE TABLE other (n int); BEGIN; INSERT INTO other VALUES (1)";
    client.batch_execute(open).await.expect("it is open");
    let handle = scene.launch().await;
    scene.keep((client, handle));
    scene
}

pub async fn slow(mut scene: Scene) -> Scene {
    let proxy = scene.proxied().await;
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    proxy.latency(Duration::from_millis(150));
    scene.keep((proxy, handle));
    scene
}

/// Ends the sessions of the relay's role.
async fn end_sessions(scene: &Scene, role: &str) {
    let end =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    scene.postgres().execute("postgres", &end).await.expect("they end");
}

/// A relay with a role of its own, which this statement about the role (`{role}`) then turns away.
async fn turned_away(scene: &mut Scene, statement: &str) {
    let role = scene.with_role().await;
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    let statement = statement.replace("{role}", &role);
    scene.postgres().execute("postgres", &statement).await.expect("changed");
    end_sessions(scene, &role).await;
    scene.keep(handle);
}

pub async fn full(mut scene: Scene) -> Scene {
    turned_away(&mut scene, "ALTER ROLE \"{role}\" CONNECTION LIMIT 0").await;
    scene
}

pub async fn refuses_the_login(mut scene: Scene) -> Scene {
    turned_away(&mut scene, "ALTER ROLE \"{role}\" NOLOGIN").await;
    scene
}

pub async fn slot_dropped(mut scene: Scene) -> Scene {
    let proxy = scene.proxied().await;
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    proxy.refuse();
    proxy.reset_all();
    // The walsender gives it free when it notices.
    let drop = format!(
        "DO $$ BEGIN
           WHILE (SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}') LOOP
             PERFORM pg_sleep(0.01);
           END LOOP;
         END $$;
         SELECT pg_drop_replication_slot('{slot}')",
        slot = scene.bed.name
    );
    scene.postgres().execute("postgres", &drop).await.expect("it is dropped");
    proxy.accept();
    scene.keep((proxy, handle));
    scene
}

pub async fn open_transaction(mut scene: Scene) -> Scene {
    // The making of each slot of the server would wait for it.
    scene.on_a_server_of_its_own().await;
    let client = scene.bed.client().await;
    let open = "CREATE TABLE other (n int); BEGIN; INSERT INTO other VALUES (1)";
    scene.bed.config.postgres.retained_wal_warning = bytesize::ByteSize::b(1);
    let handle = scene.start().await;
    client.batch_execute(open).await.expect("it is open");
    scene.load("user").await;
    scene.until(|status| status["retained_wal_waits_for"].is_string()).await;
    scene.keep((client, handle));
    scene
}
