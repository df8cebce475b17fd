use std::time::Duration;

use factlib::{
    Error, ErrorKind, Event, PipelineHandle, PipelineState,
    handlers::{HandlerError, Outcome},
};

use crate::support::{Bed, Workload, bed::LIMIT};

fn says(error: &Error, text: &str) {
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, waiting).await.expect("in time")
}

#[tokio::test]
async fn without_an_actix_system_the_error_says_what_to_do() {
    let bed = Bed::shared("no_system").await;
    let error = bed.pipeline().start().await.expect_err("there is no system");
    says(&error, "this thread has none (call start_on_own_thread() instead of start(), or");
}

#[tokio::test]
async fn on_a_thread_of_its_own_it_relays_for_any_runtime_and_ends_with_its_handle() {
    fn anywhere<T: Send + Sync>(handle: T) -> T {
        handle
    }

    let mut bed = Bed::shared("own_thread").await;
    let pipeline =
        anywhere(in_time(bed.pipeline().start_on_own_thread()).await.expect("it starts"));
    let history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    assert_eq!(pipeline.status().state, PipelineState::Running);
    assert_eq!(pipeline.health(), Ok(()));
    drop(pipeline);
    let ended = async {
        while bed.slot().await.1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(ended).await;
    let pipeline = in_time(bed.pipeline().start_on_own_thread()).await.expect("it starts again");
    in_time(pipeline.running()).await.expect("it runs");
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean(), "{report}");
    // What `start` refuses comes back as an error, too.
    bed.config.pipeline.window = bytesize::ByteSize::b(0);
    bed.pipeline().start_on_own_thread().await.expect_err("no window");
}

#[actix::test]
async fn a_slot_that_a_pipeline_of_the_process_reads_is_refused_at_once() {
    let bed = Bed::shared("twice").await;
    let first = bed.pipeline().start().await.expect("the first starts");
    let error = in_time(bed.pipeline().start()).await.expect_err("it would wait for ever");
    says(&error, "is read by a pipeline of this process already");
    assert!(error.to_string().contains(&format!("slot {} of ", bed.name)), "{error}");
    first.shutdown().await.expect("a clean stop");
    let second = in_time(bed.pipeline().start()).await.expect("the first has ended");
    drop(second);
    let third = in_time(bed.pipeline().start()).await.expect("the second has ended");
    in_time(third.running()).await.expect("the server knows by and by");
}

#[actix::test]
async fn a_second_instance_is_there_while_it_stands_by_and_says_when_it_runs() {
    let bed = Bed::shared("stands_by").await;
    let first = bed.pipeline().start().await.expect("the first starts");
    let other = || bed.pipeline().as_another_process();
    let second = in_time(other().start()).await.expect("it stands by");
    let state = second.status().state;
    let PipelineState::StandingBy { error } = &state else { panic!("{state:?}") };
    assert!(error.contains("active for PID"), "{error}");
    let third = in_time(other().start()).await.expect("it stands by");
    third.shutdown().await.expect("nothing is in flight");
    let error = third.running().await.expect_err("it never ran");
    assert!(error.to_string().contains("stopped before it read anything"), "{error}");
    first.shutdown().await.expect("a clean stop");
    in_time(second.running()).await.expect("it takes over");
    assert_eq!(second.status().state, PipelineState::Running);
    second.running().await.expect("at once");
}

#[actix::test]
async fn in_the_background_it_is_there_before_the_servers_are() {
    let mut bed = Bed::shared("background").await;
    let right = std::mem::replace(
        &mut bed.config.postgres.url,
        "postgresql://postgres@127.0.0.1:1/none".into(),
    );
    bed.config.pipeline.startup_timeout = Duration::from_millis(300);
    let pipeline = bed.pipeline().start_in_background().await.expect("no server is asked");
    assert_ne!(pipeline.status().state, PipelineState::Running);
    let error = in_time(pipeline.running()).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable, "{error}");
    assert_eq!(pipeline.wait().await.expect_err("it has ended").to_string(), error.to_string());
    bed.config.postgres.url = right;
    bed.config.pipeline.startup_timeout = LIMIT;
    let pipeline = bed.pipeline().start_in_background().await.expect("no server is asked");
    in_time(pipeline.running()).await.expect("it runs");
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn only_topics_that_are_there_can_be_paused() {
    async fn skip(_: &Event) -> Result<Outcome, HandlerError> {
        Ok(Outcome::Skip)
    }

    let bed = Bed::shared("pause").await;
    let (user, order) = (format!("{}.user", bed.name), format!("{}.order", bed.name));
    let builder = bed.pipeline().handler("order", skip).pause_topic("early");
    let pipeline: PipelineHandle = builder.start().await.expect("it starts");
    for name in [&user, &order, "usre", ""] {
        let said = format!("nothing has gone to a topic {name:?} since the start (known are ");
        says(&pipeline.pause_topic(name).expect_err(name), &said);
        says(&pipeline.resume_topic(name).expect_err(name), &said);
    }
    let error = pipeline.pause_topic("usre").expect_err("nowhere").to_string();
    let known = format!("(known are early, handler:order, {}.dead-letter)", bed.name);
    assert!(error.ends_with(&known), "{error}");
    assert!(!pipeline.status().topics.contains_key("usre"), "it leaves no trace");
    for name in ["handler:order", "early"] {
        pipeline.pause_topic(name).expect(name);
        pipeline.resume_topic(name).expect(name);
    }
    let kinds = vec!["user".into()];
    let workload = Workload { aggregate_types: kinds, ..Workload::new(&bed.name, 10) };
    let history = workload.emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    pipeline.pause_topic(user.as_str()).expect("something has gone there");
    pipeline.resume_topic(user.as_str()).expect("something has gone there");
    pipeline.shutdown().await.expect("a clean stop");
    let error = pipeline.pause_topic(user.as_str()).expect_err("nobody is there");
    let said = "the pipeline has ended, and sends nothing to any topic";
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::ActorFailed, said.into()));
}
