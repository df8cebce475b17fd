//! Members of a consumer group: rounds, crashes, restarts and refusals.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use factlib_kafka::{
    Client, Code, Error,
    group::{Assign, GroupEvent, GroupMember, GroupSettings, Membership, PROTOCOL_TYPE},
};
use factlib_testing::{KafkaServer, shared_kafka};
use tokio::time::{sleep, timeout};

use crate::numbered::{LIMIT, settings};

/// The least that brokers allow by default.
const SESSION: Duration = Duration::from_secs(6);

/// Pieces of work, shared out in order.
const WORK: u8 = 12;

fn group(name: &str) -> GroupSettings {
    let mut group = GroupSettings::new(name, "test-1");
    group.session_timeout = SESSION;
    group.heartbeat_interval = Duration::from_millis(300);
    group
}

/// Deals out the work in turn.
fn deal(members: &[GroupMember]) -> BTreeMap<String, Bytes> {
    let share = |at: usize| -> Bytes {
        (0..WORK).filter(|piece| usize::from(*piece) % members.len() == at).collect()
    };
    members.iter().enumerate().map(|(at, member)| (member.id.clone(), share(at))).collect()
}

struct Node {
    membership: Membership,
    id: String,
    assignment: Bytes,
    lost: usize,
    trouble: Vec<(Error, Option<&'static str>)>,
}

impl Node {
    fn join(bootstrap: &str, group: GroupSettings) -> Self {
        Node::with(bootstrap, group, Bytes::new(), Arc::new(deal))
    }

    fn with(bootstrap: &str, group: GroupSettings, metadata: Bytes, assign: Assign) -> Self {
        let settings = Arc::new(settings(bootstrap));
        let membership = Membership::join(settings, group, metadata, assign);
        Node {
            membership,
            id: String::new(),
            assignment: Bytes::new(),
            lost: 0,
            trouble: Vec::new(),
        }
    }

    /// Handles the next event.
    async fn event(&mut self) {
        match self.membership.next().await {
            GroupEvent::Assigned { member, assignment, .. } => {
                (self.id, self.assignment) = (member, assignment);
            }
            GroupEvent::Lost { .. } => {
                self.lost += 1;
                self.assignment = Bytes::new();
            }
            GroupEvent::Trouble { error, remedy } => self.trouble.push((error, remedy)),
            _ => {}
        }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Node) -> bool) {
        let waiting = async {
            while !holds(self) {
                self.event().await;
            }
        };
        timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
    }
}

impl Node {
    /// Waits for a refusal with this code and returns the advice.
    async fn refused(&mut self, code: Code) -> Option<&'static str> {
        let is_it = move |(error, _): &&(Error, _)| error.code() == Some(code);
        self.until("it is refused", |node| node.trouble.iter().any(|one| is_it(&one))).await;
        self.trouble.iter().find(is_it).and_then(|(_, remedy)| *remedy)
    }
}

/// Waits until these members share all the work evenly; returns the time that it took.
async fn balanced(nodes: &mut [Node]) -> Duration {
    let began = Instant::now();
    let waiting = async {
        loop {
            let mut all: Vec<u8> = nodes.iter().flat_map(|node| node.assignment.clone()).collect();
            all.sort_unstable();
            let even = usize::from(WORK) / nodes.len();
            let is_even = nodes.iter().all(|node| node.assignment.len() == even);
            if is_even && all.iter().copied().eq(0..WORK) {
                return;
            }
            let events = nodes.iter_mut().map(|node| Box::pin(node.event()));
            futures_util::future::select_all(events).await;
        }
    };
    timeout(LIMIT, waiting).await.expect("the work is shared in time");
    began.elapsed()
}

fn nodes(bootstrap: &str, name: &str, count: usize) -> Vec<Node> {
    (0..count).map(|_| Node::join(bootstrap, group(name))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_work_and_take_over_from_one_that_leaves_or_crashes() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let mut nodes = nodes(&bootstrap, "shared", 4);
    balanced(&mut nodes).await;

    let client = Client::new(settings(&bootstrap));
    let described = client.describe_group("shared").await.expect("a description");
    assert_eq!((&*described.state, &*described.protocol_type), ("Stable", PROTOCOL_TYPE));
    let known: BTreeMap<_, _> =
        described.members.into_iter().map(|member| (member.id, member.assignment)).collect();
    let ours = nodes.iter().map(|node| (node.id.clone(), node.assignment.clone()));
    assert_eq!(known, ours.collect());

    let leaving = nodes.pop().expect("a member");
    let began = Instant::now();
    leaving.membership.leave().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let took = balanced(&mut nodes).await;
    assert!(took < Duration::from_secs(2), "{took:?}");

    drop(nodes.pop());
    let took = balanced(&mut nodes).await;
    assert!(took > SESSION / 2 && took < SESSION + Duration::from_secs(4), "{took:?}");
    assert!(nodes.iter().all(|node| node.lost == 0));

    for node in nodes {
        node.membership.leave().await;
    }
    let described = client.describe_group("shared").await.expect("a description");
    assert_eq!((&*described.state, described.members.len()), ("Empty", 0));
    let missing = client.describe_group("no such group").await.expect("a description");
    assert_eq!((&*missing.state, missing.members.len()), ("Dead", 0));
}

/// Keeps what the leader saw of the members.
fn seen_by_leader() -> (Assign, Arc<Mutex<Vec<GroupMember>>>) {
    let seen = Arc::<Mutex<Vec<GroupMember>>>::default();
    let keep = Arc::clone(&seen);
    let assign: Assign = Arc::new(move |members| {
        *keep.lock().expect("no panic") = members.to_vec();
        members.iter().map(|member| (member.id.clone(), member.metadata.clone())).collect()
    });
    (assign, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_metadata_of_many_bytes_reaches_the_leader_with_the_last_assignment() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let (assign, seen) = seen_by_leader();
    let big = |byte: u8| Bytes::from(vec![byte; 100_000]);
    let mut leader = Node::with(&bootstrap, group("told"), big(0), Arc::clone(&assign));
    leader.until("it is assigned", |node| node.assignment == big(0)).await;
    let mut other = Node::with(&bootstrap, group("told"), big(1), assign);
    other.until("it is assigned", |node| node.assignment == big(1)).await;
    other.membership.rejoin(big(2));
    other.membership.rejoin(big(3));
    other.until("it is assigned anew", |node| node.assignment == big(3)).await;
    let seen = seen.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 2);
    let other = seen.iter().find(|member| member.id == other.id).expect("the member");
    assert_eq!(other.metadata, big(3));
    assert!([big(1), big(2)].contains(&other.assigned));
    let client = Client::new(settings(&bootstrap));
    let described = client.describe_group("told").await.expect("a description");
    assert!(described.members.iter().any(|member| member.metadata == big(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_keep_their_work_while_the_coordinator_restarts_within_the_session() {
    let kafka = KafkaServer::start().await.expect("a Kafka");
    let mut long = group("restarted");
    long.session_timeout = LIMIT;
    let mut nodes: Vec<_> = (0..2).map(|_| Node::join(&kafka.bootstrap(), long.clone())).collect();
    balanced(&mut nodes).await;
    kafka.kill(1).await.expect("it is killed");
    kafka.start_again(1).await.expect("it is back");
    let [mut one, mut other]: [Node; 2] = nodes.try_into().ok().expect("two members");
    // A third member starts a round, of which the others hear by their heartbeats.
    let third = Node::join(&kafka.bootstrap(), long);
    one.membership.rejoin(Bytes::from_static(b"changed"));
    let (before, other_before) = (one.id.clone(), other.id.clone());
    let mut nodes = vec![one, other, third];
    balanced(&mut nodes).await;
    [one, other] = [nodes.remove(0), nodes.remove(0)];
    assert_eq!((one.lost, other.lost), (0, 0));
    assert_eq!((one.id, other.id), (before, other_before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_hangs_past_the_session_costs_the_work_once_and_it_comes_back() {
    let kafka = KafkaServer::start().await.expect("a Kafka");
    let mut nodes = nodes(&kafka.bootstrap(), "hung", 2);
    balanced(&mut nodes).await;
    kafka.pause(1).expect("it is paused");
    let began = Instant::now();
    for node in &mut nodes {
        node.until("it has lost its work", |node| node.lost == 1).await;
    }
    let took = began.elapsed();
    assert!(took > SESSION / 2 && took < SESSION + Duration::from_secs(2), "{took:?}");
    sleep(Duration::from_secs(2)).await;
    kafka.resume(1).expect("it goes on");
    balanced(&mut nodes).await;
    assert!(nodes.iter().all(|node| node.lost == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_host_is_cut_off_loses_its_work_and_is_back_later() {
    let kafka = KafkaServer::builder().proxied_listener("CUT").start().await.expect("a Kafka");
    let mut nodes = vec![
        Node::join(&kafka.listener("CUT"), group("cut")),
        Node::join(&kafka.bootstrap(), group("cut")),
    ];
    balanced(&mut nodes).await;
    let network = kafka.listener_proxy(1, "CUT").expect("a proxy");
    network.half_open();
    let [mut cut, mut other]: [Node; 2] = nodes.try_into().ok().expect("two members");
    cut.until("it has lost its work", |node| node.lost == 1).await;
    // Its clock ended the session before the coordinator's did.
    assert_eq!(other.assignment.len(), usize::from(WORK) / 2);
    other.until("it has all the work", |node| node.assignment.len() == usize::from(WORK)).await;
    network.resume();
    let mut nodes = vec![cut, other];
    balanced(&mut nodes).await;
    assert_eq!((nodes[0].lost, nodes[1].lost), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_broker_refuses_is_reported_with_advice() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let mut short = group("short");
    short.session_timeout = Duration::from_secs(1);
    let mut node = Node::join(&bootstrap, short);
    let remedy = node.refused(Code::InvalidSessionTimeout).await;
    assert!(remedy.is_some_and(|text| text.contains("group.min.session.timeout.ms")));
    // A member of another kind is refused, too, and joins when the others are gone.
    let kept = Node::join(&bootstrap, group("kinds"));
    let mut nodes = vec![kept];
    balanced(&mut nodes).await;
    let mut other = group("kinds");
    other.protocol = "test-2".into();
    let mut other = Node::join(&bootstrap, other);
    let remedy = other.refused(Code::InconsistentGroupProtocol).await;
    assert!(remedy.is_some_and(|text| text.contains("another group name")));
    for node in nodes {
        node.membership.leave().await;
    }
    let mut nodes = vec![other];
    balanced(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_before_4_and_before_3_have_members_too() {
    for builder in [KafkaServer::builder().before_4(), KafkaServer::builder().before_3()] {
        let kafka = builder.start().await.expect("a Kafka");
        let mut nodes = nodes(&kafka.bootstrap(), "old", 2);
        balanced(&mut nodes).await;
        let client = Client::new(settings(&kafka.bootstrap()));
        let described = client.describe_group("old").await.expect("a description");
        assert_eq!(described.members.len(), 2);
        nodes.pop().expect("a member").membership.leave().await;
        let took = balanced(&mut nodes).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
