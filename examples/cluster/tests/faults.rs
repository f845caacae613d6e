//! Three nodes, a real Redis and 300 readers, while nodes and Redis are killed, cut off, paused and emptied. In the end every
//! reader has every acknowledged event of its topics once and in order, or a gap that says so and is true.
//!
//! `cargo test --test faults -- --ignored --nocapture` runs it and prints its seed; `FAULTS_SEED` repeats a run, as far as the
//! machine's timing allows; `FAULTS_VERBOSE` shows what the nodes print.

mod support;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, UNIX_EPOCH};

use support::nodes::NodeProcess;
use support::proxy::Proxy;
use support::publisher::{self, Outcome, Published};
use support::reader::{Kind, Reader, Told};
use support::redis_server::RedisServer;
use support::{PATIENCE, Random, Stop, eventually, free_ports};

const TOPICS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const READERS: usize = 300;
const PUBLISHERS: usize = 6;

const STREAM: &str = "{tiny-sse}:stream";
const EPOCHS: &str = "{tiny-sse}:epochs";

/// Memory for 40 events of a topic covers a second or two: readers that come back read the rest from Redis.
const NODE_SETTINGS: [&str; 2] = ["history=40", "load=100"];

#[test]
#[ignore = "needs redis-server"]
fn with_fsync_always_nothing_is_lost() {
    let faults = [
        (Fault::KillNode, 12),
        (Fault::EndNode, 2),
        (Fault::CutOff, 3),
        (Fault::Pause, 2),
        (Fault::KillRedis, 3),
        (Fault::EndRedis, 2),
        (Fault::KillNodeAndRedis, 2),
    ];
    let told = Cluster::start("always", "always").run(&faults);
    let gaps: Vec<&(String, String)> = told.iter().flat_map(|reader| &reader.gaps).collect();
    assert!(gaps.is_empty(), "gaps although nothing was lost: {gaps:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn what_is_lost_is_told() {
    let faults = [
        (Fault::KillNode, 8),
        (Fault::CutOff, 2),
        (Fault::Pause, 1),
        (Fault::KillRedis, 2),
        (Fault::LosePower, 4),
        (Fault::EndRedis, 1),
        (Fault::Trim, 4),
        (Fault::DeleteStream, 2),
        (Fault::KillNodeAndRedis, 1),
    ];
    let told = Cluster::start("everysec", "everysec").run(&faults);
    let gaps = told.iter().map(|reader| reader.gaps.len()).sum::<usize>();
    assert!(gaps > 0, "no gap was told");
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode,
    /// SIGTERM: the node drains.
    EndNode,
    /// Nothing comes through between a node and Redis.
    CutOff,
    /// Redis answers no command.
    Pause,
    KillRedis,
    /// SIGTERM: Redis writes and syncs what it has.
    EndRedis,
    /// SIGKILL, and the end of the append-only file is lost.
    LosePower,
    KillNodeAndRedis,
    Trim,
    DeleteStream,
}

struct Cluster {
    seed: u64,
    redis: RedisServer,
    proxies: Vec<Proxy>,
    nodes: Arc<Vec<NodeProcess>>,
    ports: Vec<u16>,
    random: Random,
    /// Before these sequences an epoch left a hole, or the stream was trimmed or replaced.
    published: Vec<Published>,
}

impl Cluster {
    fn start(name: &str, fsync: &'static str) -> Cluster {
        let seed = match std::env::var("FAULTS_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000,
        };
        println!("{name}: FAULTS_SEED={seed}");
        let [redis, ports @ ..] = free_ports::<4>();
        let redis = RedisServer::start(name, redis, fsync);
        let proxies: Vec<Proxy> = ports.iter().map(|_| Proxy::start(redis.port)).collect();
        let nodes = ports.iter().zip(&proxies);
        let nodes: Vec<NodeProcess> = nodes
            .map(|(port, proxy)| NodeProcess::new(*port, proxy.port, &NODE_SETTINGS))
            .collect();
        nodes.iter().for_each(NodeProcess::serve);
        Cluster {
            seed,
            redis,
            proxies,
            nodes: Arc::new(nodes),
            ports: ports.to_vec(),
            random: Random::new(seed),
            published: Vec::new(),
        }
    }

    /// Lets readers read and publishers publish while the faults happen, in a random order; then checks what was told.
    fn run(mut self, faults: &[(Fault, usize)]) -> Vec<Checked> {
        let first = self.publish_first();
        let stop = Arc::<Stop>::default();
        let readers = self.start_readers(&first, &stop);
        let publishers_stop = Arc::<Stop>::default();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|name| self.start_publisher(name, &publishers_stop))
            .collect();

        let mut order: Vec<Fault> = faults
            .iter()
            .flat_map(|(fault, times)| vec![*fault; *times])
            .collect();
        for index in (1..order.len()).rev() {
            order.swap(index, self.random.below(index as u64 + 1) as usize);
        }
        for fault in order {
            println!("  {fault:?} after {}", self.newest());
            self.cause(fault);
            thread::sleep(self.random.millis(0, 1200));
        }
        self.nodes.iter().for_each(NodeProcess::serve);
        publishers_stop.set();
        for publisher in publishers {
            self.published.extend(publisher.join().unwrap());
        }
        self.publish_end();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(10));
        }
        stop.set();
        let readers: Vec<Reader> = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        for reader in readers.iter().filter(|reader| !reader.is_done).take(5) {
            let newest = &reader.told[reader.told.len().saturating_sub(8)..];
            println!(
                "  reader {} ({:?}) waits after {}: {newest:?}",
                reader.name, reader.kind, reader.last_event_id
            );
        }
        assert!(
            readers.iter().all(|reader| reader.is_done),
            "readers without the last event"
        );
        self.check(&readers, &first)
    }

    /// Publishes one event to each topic, for readers that begin with the newest. Returns the id of the last one.
    fn publish_first(&mut self) -> String {
        let mut last = String::new();
        for topic in TOPICS {
            let published =
                publisher::publish(self.ports[0], format!("first {topic}"), vec![topic]);
            let Outcome::Acknowledged(id) = &published.outcome else {
                panic!("{published:?}");
            };
            last = id.clone();
            self.published.push(published);
        }
        eventually("all nodes have heard of the first events", || {
            self.nodes.iter().all(|node| node.health() == Some(200))
        });
        thread::sleep(Duration::from_millis(300));
        last
    }

    /// Starts the readers, and returns when each reader has a position in the log.
    fn start_readers(&mut self, first: &str, stop: &Arc<Stop>) -> Vec<JoinHandle<Reader>> {
        let mut readers = Vec::new();
        let mut all_begun = Vec::new();
        for name in 0..READERS {
            let kind = match name % 10 {
                0 | 1 => Kind::LongPoll,
                2 | 3 => Kind::Retained,
                4 => Kind::Sleepy,
                _ => Kind::Stream,
            };
            let is_poll = kind == Kind::LongPoll;
            let reader = Reader {
                name,
                kind,
                topics: publisher::some(&TOPICS, &mut self.random),
                told: Vec::new(),
                last_event_id: if is_poll {
                    first.to_string()
                } else {
                    String::new()
                },
                connections: 0,
                is_done: false,
            };
            let begun = Arc::new(AtomicBool::new(is_poll));
            all_begun.push(Arc::clone(&begun));
            let (ports, random) = (self.ports.clone(), Random::new(self.seed + 1 + name as u64));
            let stop = Arc::clone(stop);
            readers.push(thread::spawn(move || {
                reader.run(&ports, random, &begun, &stop)
            }));
        }
        eventually("every reader has begun", || {
            all_begun.iter().all(|begun| begun.load(Ordering::SeqCst))
        });
        readers
    }

    fn start_publisher(&mut self, name: usize, stop: &Arc<Stop>) -> JoinHandle<Vec<Published>> {
        let (ports, stop) = (self.ports.clone(), Arc::clone(stop));
        let mut random = Random::new(self.seed + 1000 + name as u64);
        thread::spawn(move || {
            let mut all = Vec::new();
            while !stop.is_set() {
                let data = format!("{name}.{}", all.len());
                let topics = publisher::some(&TOPICS, &mut random);
                all.push(publisher::publish(*random.pick(&ports), data, topics));
                thread::sleep(random.millis(5, 40));
            }
            all
        })
    }

    /// Publishes the last event to all topics, so that each reader knows that it has all events.
    fn publish_end(&mut self) {
        for attempt in 0.. {
            let data = format!("end {attempt}");
            let published = publisher::publish(self.ports[0], data, TOPICS.to_vec());
            let is_there = matches!(published.outcome, Outcome::Acknowledged(_));
            self.published.push(published);
            if is_there {
                return;
            }
            assert!(attempt < 100, "the last event cannot be published");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the newest epoch and the sequence of the newest event, to see in the output what Redis has lost.
    fn newest(&self) -> String {
        let epoch: Option<String> = self.redis.query(&["LINDEX", EPOCHS, "-1"]);
        let newest: Vec<(String, Vec<String>)> =
            (self.redis).query(&["XREVRANGE", STREAM, "+", "-", "COUNT", "1"]);
        format!("{:?} {:?}", epoch, newest.first().map(|(id, _)| id))
    }

    fn cause(&mut self, fault: Fault) {
        let index = self.random.below(3) as usize;
        let pause = self.random.millis(0, 800);
        match fault {
            Fault::KillNode | Fault::EndNode => {
                match fault {
                    Fault::KillNode => self.nodes[index].kill(),
                    _ => self.nodes[index].end(),
                }
                thread::sleep(pause);
                self.nodes[index].serve();
            }
            Fault::CutOff => {
                self.proxies[index].stop();
                thread::sleep(self.random.millis(2000, 5000));
                self.proxies[index].go_on();
            }
            Fault::Pause => {
                let millis = 1000 + self.random.below(3000);
                self.redis
                    .query::<()>(&["CLIENT", "PAUSE", &millis.to_string()]);
                thread::sleep(Duration::from_millis(millis));
            }
            Fault::KillRedis | Fault::LosePower => {
                self.redis.kill();
                if let Fault::LosePower = fault {
                    self.redis.lose(self.random.below(8000) as usize);
                }
                thread::sleep(pause);
                self.redis.start_again();
            }
            Fault::EndRedis => {
                self.redis.end();
                thread::sleep(pause);
                self.redis.start_again();
            }
            Fault::KillNodeAndRedis => {
                self.redis.kill();
                self.nodes[index].kill();
                thread::sleep(pause);
                self.redis.start_again();
                self.nodes[index].serve();
            }
            Fault::Trim => {
                let keep = self.random.below(20).to_string();
                self.redis
                    .query::<u64>(&["XTRIM", STREAM, "MAXLEN", "=", &keep]);
            }
            Fault::DeleteStream => self.redis.query(&["DEL", STREAM]),
        }
    }

    fn check(&self, readers: &[Reader], first: &str) -> Vec<Checked> {
        let log = Log::new(&self.redis);
        let first = log.place(first);
        let count = |is: fn(&Outcome) -> bool| {
            self.published
                .iter()
                .filter(|event| is(&event.outcome))
                .count()
        };
        println!(
            "  {} events acknowledged, {} refused, {} unknown; {} epochs; {} connections of readers",
            count(|outcome| matches!(outcome, Outcome::Acknowledged(_))),
            count(|outcome| *outcome == Outcome::NotPublished),
            count(|outcome| *outcome == Outcome::Unknown),
            log.epochs.len(),
            readers
                .iter()
                .map(|reader| reader.connections)
                .sum::<usize>(),
        );
        let checked: Vec<Checked> = readers
            .iter()
            .map(|reader| Checked::new(reader, &self.published, &log, first))
            .collect();
        println!(
            "  {} gaps",
            checked
                .iter()
                .map(|reader| reader.gaps.len())
                .sum::<usize>()
        );
        checked
    }
}

/// A position in the log over all its lives: the index of an epoch, and the sequence.
type Place = (usize, u64);

/// What Redis has in the end.
struct Log {
    /// The epochs, with the first sequence of each.
    epochs: Vec<(String, u64)>,
    /// The epochs that began with an empty stream after others.
    replaced: HashSet<String>,
    /// The positions of the events that it still has.
    places: HashSet<Place>,
}

impl Log {
    fn new(redis: &RedisServer) -> Log {
        let lines: Vec<String> = redis.query(&["LRANGE", EPOCHS, "0", "-1"]);
        let mut log = Log {
            epochs: Vec::new(),
            replaced: HashSet::new(),
            places: HashSet::new(),
        };
        for line in lines {
            let fields: Vec<&str> = line.split(' ').collect();
            log.epochs
                .push((fields[0].to_string(), fields[1].parse().unwrap()));
            if fields[4] == "2" {
                log.replaced.insert(fields[0].to_string());
            }
        }
        let entries: Vec<(String, Vec<String>)> = redis.query(&["XRANGE", STREAM, "-", "+"]);
        for (id, fields) in entries {
            let sequence = id.strip_prefix("0-").unwrap();
            let epoch = fields.iter().position(|field| field == "e").unwrap();
            let place = log.place(&format!("{}-{sequence}", fields[epoch + 1]));
            log.places.insert(place);
        }
        log
    }

    #[track_caller]
    fn place(&self, id: &str) -> Place {
        let (epoch, sequence) = id.split_once('-').unwrap();
        let index = self.epochs.iter().position(|(known, _)| known == epoch);
        let index = index.unwrap_or_else(|| panic!("{id} is of no epoch"));
        (index, sequence.parse().unwrap())
    }

    /// Returns the position after which a reader goes on. It may be before the first event of an epoch, and so before what was
    /// lost with the epoch before.
    fn place_before(&self, id: &str) -> Place {
        let (mut index, sequence) = self.place(id);
        while index > 0
            && sequence < self.epochs[index].1
            && !self.replaced.contains(&self.epochs[index].0)
        {
            index -= 1;
        }
        (index, sequence)
    }

    /// Whether the log has an event at each position after `from`, up to `to`.
    fn has_all(&self, from: Place, to: Place) -> bool {
        let next = self.epochs.get(from.0 + 1);
        if next.is_some_and(|(_, first)| from.1 >= *first) {
            return false; // The log has lost this event, which the reader has.
        }
        if from.0 != to.0 {
            let ends = from.0 + 1..=to.0;
            // Sequences go on from epoch to epoch, unless the stream was replaced.
            if ends
                .into_iter()
                .any(|index| self.epochs[index].1 <= self.epochs[index - 1].1.max(from.1))
            {
                return false;
            }
        }
        let epoch = |sequence: u64| {
            self.epochs[..=to.0]
                .iter()
                .rposition(|(_, first)| *first <= sequence)
                .unwrap()
        };
        (from.1 + 1..=to.1).all(|sequence| self.places.contains(&(epoch(sequence), sequence)))
    }
}

/// A reader that was told all that it should be told.
struct Checked {
    gaps: Vec<(String, String)>,
}

impl Checked {
    fn new(reader: &Reader, published: &[Published], log: &Log, first: Place) -> Checked {
        let who = format!(
            "reader {} ({:?} of {:?})",
            reader.name, reader.kind, reader.topics
        );
        let by_data: HashMap<&str, &Published> = published
            .iter()
            .map(|event| (&*event.data, event))
            .collect();
        let mut got = BTreeSet::new();
        let mut missing: Vec<(Place, Place)> = Vec::new();
        let mut gaps = Vec::new();
        let mut last: Option<Place> = None;
        for (index, told) in reader.told.iter().enumerate() {
            let context = &reader.told[index.saturating_sub(12)..=index];
            match told {
                Told::Event { id, data } => {
                    let place = log.place(id);
                    let event = by_data[&**data];
                    assert!(
                        last < Some(place),
                        "{who}: {data} at {place:?} after {last:?}: {context:?}; {:?}",
                        log.epochs
                    );
                    assert!(
                        event
                            .topics
                            .iter()
                            .any(|topic| reader.topics.contains(topic)),
                        "{who}: {event:?}"
                    );
                    match &event.outcome {
                        Outcome::Acknowledged(its) => assert_eq!(its, id, "{who}: {event:?}"),
                        Outcome::NotPublished => panic!("{who}: {event:?} was not published"),
                        Outcome::Unknown => {}
                    }
                    assert!(got.insert(place));
                    last = Some(place);
                }
                Told::Connected { .. } => {}
                Told::Gap { from, to } => {
                    let (first_missing, to_place) = (log.place_before(from), log.place(to));
                    assert!(
                        !log.has_all(first_missing, to_place),
                        "{who}: gap {from} {to} although the log has all: {context:?}; {:?}",
                        log.epochs
                    );
                    missing.push((first_missing, to_place.max(first_missing)));
                    gaps.push((from.clone(), to.clone()));
                    last = last.max(Some(to_place));
                }
            }
        }
        for event in published {
            let Outcome::Acknowledged(id) = &event.outcome else {
                continue;
            };
            let place = log.place(id);
            let is_wanted = event
                .topics
                .iter()
                .any(|topic| reader.topics.contains(topic))
                && place > first;
            let is_told = got.contains(&place)
                || missing
                    .iter()
                    .any(|(from, to)| *from < place && place <= *to);
            assert!(
                !is_wanted || is_told,
                "{who}: {event:?} is missing; gaps {gaps:?}; {:?}",
                log.epochs
            );
        }
        let retained = reader.topics.iter().filter(|topic| {
            let data = format!("first {topic}");
            reader
                .told
                .iter()
                .any(|told| matches!(told, Told::Event { data: its, .. } if *its == data))
        });
        if reader.kind == Kind::Retained {
            assert_eq!(
                retained.count(),
                reader.topics.len(),
                "{who}: not the newest of each topic"
            );
        }
        Checked { gaps }
    }
}
