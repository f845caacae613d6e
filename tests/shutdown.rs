//! Shutdown ends every stream inside the deadline, lets requests in progress finish, and leaves no thread and no descriptor.

#![cfg_attr(not(target_os = "linux"), allow(unused_imports, dead_code))] // The tests that count threads are for Linux.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::{
    Child, Client, EventSource, PATIENCE, TestServer, announce, eventually, start, wait_for_parent,
};
use tiny_sse::{
    Config, Event, Hub, HubConfig, Request, Response, Server, ServerHandle, Sse, StillOpen,
};

/// A deadline that no test waits for, so that everything ends for another reason.
const NEVER: Duration = Duration::from_secs(3600);

/// Limits that no test waits for.
fn patient() -> Config {
    Config {
        head_timeout: NEVER,
        body_timeout: NEVER,
        idle_timeout: NEVER,
        write_timeout: NEVER,
        min_bytes_per_second: 0,
        ..Config::default()
    }
}

/// A shutdown in progress.
struct Ending(Receiver<Result<(), StillOpen>>);

impl Ending {
    fn begin(handle: ServerHandle, deadline: Duration) -> Ending {
        let (sender, result) = mpsc::channel();
        thread::spawn(move || sender.send(handle.shutdown(deadline)));
        Ending(result)
    }

    /// Waits for the shutdown and returns its result.
    #[track_caller]
    fn end(self) -> Result<(), StillOpen> {
        self.0.recv_timeout(PATIENCE).expect("the end of shutdown")
    }
}

/// A server and a handle that ends it.
struct Site {
    server: TestServer,
    handle: ServerHandle,
}

impl Site {
    fn start(config: Config, build: impl FnOnce(Server) -> Server) -> Site {
        let mut handle = None;
        let server = start(config, |server| {
            handle = Some(server.handle());
            build(server.get("/hello", |_| "hello\n"))
        });
        let handle = handle.unwrap();
        Site { server, handle }
    }

    fn shut_down(&self) -> Ending {
        Ending::begin(self.handle.clone(), NEVER)
    }

    fn open(&self, target: &str) -> EventSource {
        EventSource::open(self.server.addr(), target, &[])
    }

    /// Waits until nobody can connect any more.
    fn until_it_does_not_listen(&self) {
        eventually(|| TcpStream::connect(self.server.addr()).is_err());
    }
}

/// Reads a stream to its end. Returns the `retry` at its end, and whether it had the last chunk.
#[track_caller]
fn retry_at_the_end(mut stream: EventSource) -> (u64, bool) {
    let is_whole = loop {
        match stream.try_next() {
            Ok(Some(_)) => {}
            Ok(None) => break true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                break false;
            }
        }
    };
    stream.client.ends();
    (stream.retry.expect("a retry of its own"), is_whole)
}

#[test]
fn streams_end_with_a_retry_of_their_own() {
    let senders: Arc<Mutex<Vec<Sender<Event>>>> = Arc::default();
    let silent = Arc::clone(&senders);
    let hub = Hub::new();
    let readers = hub.clone();
    let site = Site::start(patient(), |server| {
        server
            .get("/silent", move |_| {
                let (sender, receiver) = mpsc::channel();
                silent.lock().unwrap().push(sender);
                Sse::new(receiver).last(Event::data("never, as more would have come"))
            })
            .get("/busy", |_| {
                Sse::spawn(|events| while events.send(Event::data("again")).is_ok() {})
            })
            .get("/hub", move |request: &Request| {
                readers.subscribe(request, "topic")
            })
    });
    let mut streams: Vec<EventSource> = ["/silent", "/busy", "/hub"]
        .into_iter()
        .flat_map(|target| [target; 8])
        .map(|target| site.open(target))
        .collect();
    let mut bare = site.server.connect();
    bare.send("GET /silent HTTP/1.0\r\n\r\n");
    streams.push(EventSource::answer(bare));

    let ending = site.shut_down();
    // Each stream has a thread of its client: the busy ones do not end before their clients have read what was sent.
    let threads: Vec<_> = streams
        .into_iter()
        .map(|stream| thread::spawn(|| retry_at_the_end(stream)))
        .collect();
    let ends: Vec<(u64, bool)> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(ending.end(), Ok(()));
    // The streams of the hub have a last chunk, since their readers resume. The other chunked streams have none. The last
    // stream is of HTTP/1.0, where the client cannot tell.
    let whole: Vec<usize> = (0..ends.len()).filter(|&index| ends[index].1).collect();
    assert_eq!(whole, (16..25).collect::<Vec<_>>());
    let mut retries: Vec<u64> = ends.into_iter().map(|(retry, _)| retry).collect();
    assert!(
        retries.iter().all(|retry| (500..5500).contains(retry)),
        "{retries:?}"
    );
    retries.sort_unstable();
    retries.dedup();
    assert!(
        retries.len() > 5,
        "they would all come back together: {retries:?}"
    );
    // The next send of each producer fails.
    let senders = senders.lock().unwrap();
    assert!(
        senders
            .iter()
            .all(|sender| sender.send(Event::data("a")).is_err())
    );
}

/// The socket is full and an event was written in part when the shutdown begins: first comes the rest of the event.
#[test]
fn a_stream_is_not_ended_in_the_middle_of_an_event() {
    let hub = Hub::new();
    let readers = hub.clone();
    let site = Site::start(patient(), |server| {
        server
            .get("/flood", |_| {
                Sse::spawn(
                    |events| {
                        while events.send(Event::data("x".repeat(1_000_000))).is_ok() {}
                    },
                )
            })
            .get("/hub", move |request: &Request| {
                readers.subscribe(request, "topic")
            })
    });
    let streams = [site.open("/flood"), site.open("/hub"), site.open("/flood")];
    for _ in 0..50 {
        hub.publish("topic", Event::data("x".repeat(1_000_000)))
            .unwrap();
    }
    let ending = site.shut_down();
    site.until_it_does_not_listen();
    for stream in streams {
        retry_at_the_end(stream);
    }
    assert_eq!(ending.end(), Ok(()));
}

/// A stream that ends by itself before the deadline has its last chunk, and its connection closes.
#[test]
fn a_finite_stream_goes_on_until_the_deadline() {
    let (new, senders) = mpsc::channel();
    let site = Site::start(patient(), |server| {
        server.get("/tokens", move |_| {
            let (sender, receiver) = mpsc::channel();
            new.send(sender).unwrap();
            Sse::new(receiver).finish_within_deadline()
        })
    });
    let open = || {
        let stream = site.open("/tokens");
        let sender: Sender<Event> = senders.recv_timeout(PATIENCE).unwrap();
        (stream, sender)
    };
    let ((mut stream, sender), (mut other, _other_sender)) = (open(), open());
    let (mut ended, cut) = (open(), open());
    ended
        .0
        .client
        .send("GET /tokens HTTP/1.1\r\nHost: a\r\n\r\n"); // This request gets no response.
    let ending = site.shut_down();
    site.until_it_does_not_listen();
    // Longer than streams take to see that the server is closing: that they go on shows by nothing that happens.
    thread::sleep(Duration::from_millis(1500));
    for (stream, sender) in [(&mut stream, sender), (&mut ended.0, ended.1)] {
        sender.send(Event::data("token")).unwrap();
        drop(sender);
        assert_eq!(stream.data(), "token");
        assert_eq!(stream.next(), None);
        stream.client.ends();
    }
    let at_once = Ending::begin(site.handle.clone(), Duration::ZERO);
    assert_eq!(at_once.end(), Ok(()));
    assert_eq!(ending.end(), Ok(()));
    drop(cut.1);
    for stream in [&mut other, &mut { cut.0 }] {
        assert!(
            stream.try_next().is_err(),
            "it is cut off and does not look whole"
        );
    }
}

#[test]
fn idle_connections_end_at_once() {
    let site = Site::start(patient(), |server| server);
    let mut clients: Vec<Client> = (0..10).map(|_| site.server.connect()).collect();
    for client in clients.iter_mut().skip(2) {
        assert_eq!(client.get("/hello").status(), 200);
    }
    // The first two have not asked for anything yet.
    assert_eq!(site.shut_down().end(), Ok(()));
    for client in &mut clients {
        client.is_cut();
    }
}

#[test]
fn a_request_in_flight_finishes() {
    let (let_go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (entered, enters) = mpsc::channel();
    let site = Site::start(patient(), |server| {
        server
            .get("/slow", move |_| {
                entered.send(()).unwrap();
                wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                "at last\n"
            })
            .post("/echo", |request: &Request| {
                Response::bytes("text/plain", request.body().to_vec())
            })
    });
    let mut slow = site.server.connect();
    // The second request gets no response.
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2));
    enters.recv_timeout(PATIENCE).unwrap();
    let mut upload = site.server.connect();
    let fields = [("Content-Length", "2"), ("Expect", "100-continue")];
    upload.request("POST", "/echo", &fields, b"");
    assert_eq!(upload.head().status, 100);

    let ending = site.shut_down();
    site.until_it_does_not_listen();
    let_go.send(()).unwrap();
    upload.send("ok");
    for (client, text) in [(&mut slow, "at last\n"), (&mut upload, "ok")] {
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text()), (200, text));
        assert_eq!(answer.head.field("connection"), Some("close"));
        client.ends();
    }
    assert_eq!(ending.end(), Ok(()));
}

/// The shutdown ends the wait of a connection whose next request arrives at this moment, so that the rest of it is not read. The
/// client has done nothing wrong, and learns that it may try again.
#[test]
fn a_request_that_the_shutdown_interrupts_is_not_called_malformed() {
    for _ in 0..20 {
        let site = Site::start(patient(), |server| server.post("/echo", |_| "echo\n"));
        let mut clients: Vec<Client> = (0..8).map(|_| site.server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/hello").status(), 200);
        }
        let ending = site.shut_down();
        for client in &clients {
            // An error means that the connection has ended before.
            let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\no";
            let _ = (&client.stream).write_all(head);
        }
        site.until_it_does_not_listen();
        for client in &mut clients {
            let _ = (&client.stream).write_all(b"k");
            let Ok(head) = client.try_head() else {
                continue;
            };
            assert!(matches!(head.status, 200 | 503), "{}", head.status);
        }
        drop(clients); // The server waits until they have read.
        assert_eq!(ending.end(), Ok(()));
    }
}

#[test]
fn a_handler_that_does_not_return_is_cut_off_and_reported() {
    check_stuck_handler(Duration::from_millis(50));
    check_stuck_handler(Duration::ZERO); // The threads that accept are still woken.
}

fn check_stuck_handler(time: Duration) {
    let (let_go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (entered, enters) = mpsc::channel();
    let site = Site::start(patient(), |server| {
        server.get("/stuck", move |_| {
            entered.send(()).unwrap();
            let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
            ""
        })
    });
    let mut client = site.server.connect();
    client.request("GET", "/stuck", &[], b"");
    enters.recv_timeout(PATIENCE).unwrap();
    let shut_down = || Ending::begin(site.handle.clone(), time).end();
    let left = shut_down().unwrap_err();
    assert_eq!((left.connections, left.threads), (1, 1));
    assert_eq!(left.to_string(), "1 connections and 1 threads are left");
    client.ends();
    assert_eq!(shut_down(), Err(left), "it is still there");
    drop(let_go);
    eventually(|| shut_down() == Ok(()));
}

/// The connection has gone, and its thread still works for it.
#[test]
fn a_guard_whose_drop_does_not_return_is_reported() {
    struct Stuck(Sender<()>, Receiver<()>);
    impl Drop for Stuck {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            let _ = self.1.recv_timeout(PATIENCE);
        }
    }
    let (let_go, wait) = mpsc::channel();
    let (entered, enters) = mpsc::channel();
    let guard = Mutex::new(Some(Stuck(entered, wait)));
    let site = Site::start(patient(), |server| {
        server.get("/stuck", move |_| {
            Sse::spawn(|_| ()).guard(guard.lock().unwrap().take())
        })
    });
    // To HTTP/1.0 the end of the stream is that of the connection.
    let mut client = site.server.connect();
    client.send("GET /stuck HTTP/1.0\r\n\r\n");
    enters.recv_timeout(PATIENCE).unwrap();
    let shut_down = || Ending::begin(site.handle.clone(), Duration::ZERO).end();
    // On a slow machine more is left at first.
    eventually(|| {
        let left = shut_down().unwrap_err();
        (left.connections, left.threads) == (0, 1)
    });
    drop(let_go);
    eventually(|| shut_down() == Ok(()));
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off_at_the_deadline() {
    let (ended, end) = mpsc::channel();
    let hub = Hub::open(HubConfig {
        max_event_bytes: 64 << 20,
        ..HubConfig::default()
    })
    .unwrap();
    let readers = hub.clone();
    let site = Site::start(patient(), |server| {
        server
            .get("/flood", move |_| {
                let ended = ended.clone();
                Sse::spawn(move |events| {
                    while events.send(Event::data("x".repeat(100_000))).is_ok() {}
                    ended.send(()).unwrap();
                })
            })
            .get("/hub", move |request: &Request| {
                readers.subscribe(request, "topic")
            })
            .get("/large", |_| "x".repeat(50_000_000))
    });
    let mut streams = [site.open("/flood"), site.open("/hub")];
    eventually(|| hub.stats().readers_behind == 0);
    // More than any buffer takes: a stream whose bytes all fit may end with its last chunk.
    hub.publish("topic", Event::data("x".repeat(50_000_000)))
        .unwrap();
    eventually(|| hub.stats().readers_behind == 1);
    let mut large = site.server.connect();
    large.request("GET", "/large", &[], b"");
    large.head();
    let ending = Ending::begin(site.handle.clone(), Duration::from_millis(50));
    assert_eq!(ending.end(), Ok(()));
    end.recv_timeout(PATIENCE).unwrap();
    for stream in &mut streams {
        while let Ok(message) = stream.try_next() {
            assert!(message.is_some(), "a last chunk behind a torn event");
        }
    }
    large.is_cut();
}

#[test]
fn without_any_time_everything_is_cut_off() {
    for _ in 0..10 {
        let site = Site::start(patient(), |server| {
            server.get("/events", |_| {
                Sse::spawn(|events| while events.send(Event::data("a")).is_ok() {})
            })
        });
        let mut idle = site.server.connect();
        assert_eq!(idle.get("/hello").status(), 200);
        let mut stream = site.open("/events");
        assert_eq!(
            Ending::begin(site.handle.clone(), Duration::ZERO).end(),
            Ok(())
        );
        assert!(TcpStream::connect(site.server.addr()).is_err());
        idle.is_cut();
        stream.client.is_cut();
    }
}

#[test]
fn the_port_is_free_again_when_shutdown_comes_back() {
    let is_free = |_: &i32| {
        let site = Site::start(Config::default(), |server| server);
        let mut client = site.server.connect();
        assert_eq!(client.get("/hello").status(), 200);
        assert_eq!(site.shut_down().end(), Ok(()));
        TcpListener::bind(site.server.addr()).is_ok()
    };
    // Now and then another test's connection is quicker to take the port.
    assert!((0..50).filter(is_free).count() > 40);
}

#[test]
fn a_server_that_does_not_run_yet_ends_as_soon_as_it_runs() {
    let dropped = Arc::new(());
    let held = Arc::clone(&dropped);
    let server = Server::bind("127.0.0.1:0").unwrap().get("/", move |_| {
        let _ = &held;
        ""
    });
    let handle = server.handle();
    assert_eq!(handle.shutdown(NEVER), Ok(()));
    let addr = server.addr();
    server.run().unwrap();
    eventually(|| TcpListener::bind(addr).is_ok());
    assert_eq!(Arc::strong_count(&dropped), 1, "nothing of it is left");
    assert_eq!(handle.shutdown(NEVER), Ok(()));
}

#[test]
fn a_server_whose_threads_cannot_start_says_so_and_does_not_listen() {
    let config = Config {
        thread_stack_bytes: usize::MAX / 4 * 3, // More than any address space has in one piece.
        ..Config::default()
    };
    for run in [|server: Server| server.spawn().map(drop), Server::run] {
        let server = Server::bind("127.0.0.1:0").unwrap().config(config.clone());
        let addr = server.addr();
        assert!(run(server).is_err());
        eventually(|| TcpListener::bind(addr).is_ok());
    }
}

#[test]
fn run_comes_back_after_shutdown_and_lets_everything_go() {
    let dropped = Arc::new(());
    let held = Arc::clone(&dropped);
    let server = Server::bind("127.0.0.1:0").unwrap().get("/", move |_| {
        let _ = &held;
        "hello\n"
    });
    let (addr, handle) = (server.addr(), server.handle());
    let (sender, result) = mpsc::channel();
    thread::spawn(move || sender.send(server.run().is_ok()));
    assert_eq!(Client::connect(addr).get("/").text(), "hello\n");
    assert_eq!(Ending::begin(handle, NEVER).end(), Ok(()));
    assert_eq!(Arc::strong_count(&dropped), 1);
    assert_eq!(result.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn several_threads_may_shut_down_and_again() {
    let site = Site::start(patient(), |server| {
        server.get("/events", |_| {
            Sse::spawn(|events| while events.send(Event::data("a")).is_ok() {})
        })
    });
    let stream = site.open("/events");
    let endings: Vec<Ending> = (0..8).map(|_| site.shut_down()).collect();
    retry_at_the_end(stream);
    for ending in endings {
        assert_eq!(ending.end(), Ok(()));
    }
    assert_eq!(site.shut_down().end(), Ok(()));
    assert_eq!(site.server.shutdown(Duration::ZERO), Ok(()));
}

#[test]
fn a_second_shutdown_can_bring_the_deadline_forward_but_not_put_it_off() {
    let site = Site::start(patient(), |server| {
        server.get("/large", |_| "x".repeat(100_000_000))
    });
    // More than any buffer takes: after its first bytes the response is stuck.
    let mut stuck = TcpStream::connect(site.server.addr()).unwrap();
    stuck
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    stuck.read_exact(&mut [0; 100]).unwrap();
    let first = site.shut_down();
    assert_eq!(
        first.0.recv_timeout(Duration::from_millis(50)),
        Err(RecvTimeoutError::Timeout)
    );
    let second = Ending::begin(site.handle.clone(), Duration::from_millis(50));
    let third = site.shut_down();
    for ending in [first, second, third] {
        assert_eq!(ending.end(), Ok(()));
    }
}

#[test]
fn a_deadline_that_no_clock_can_hold_is_none() {
    let site = Site::start(Config::default(), |server| server);
    let ending = Ending::begin(site.handle.clone(), Duration::MAX);
    assert_eq!(ending.end(), Ok(()));
}

#[test]
fn a_server_on_all_addresses_ends_as_well() {
    for address in ["0.0.0.0:0", "[::]:0", "[::1]:0"] {
        let Ok(server) = Server::bind(address) else {
            continue; // No IPv6 on this machine.
        };
        let handle = server.handle();
        server.spawn().unwrap();
        assert_eq!(Ending::begin(handle, NEVER).end(), Ok(()), "{address}");
    }
}

#[test]
fn every_thread_that_accepts_is_woken() {
    for accept_threads in [0, 1, 2, 16] {
        let config = Config {
            accept_threads,
            ..Config::default()
        };
        let site = Site::start(config, |server| server);
        assert_eq!(site.server.connect().get("/hello").text(), "hello\n");
        assert_eq!(site.shut_down().end(), Ok(()));
    }
}

#[test]
fn a_listener_that_the_caller_brings_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap(); // As some programs that hand over sockets leave it.
    let kept = listener.try_clone().unwrap();
    let server = Server::from_listener(listener)
        .unwrap()
        .get("/", |_| "hello\n");
    assert_eq!(server.addr(), addr);
    let handle = server.spawn().unwrap();
    assert_eq!(handle.addr(), addr);
    assert_eq!(Client::connect(addr).get("/").text(), "hello\n");
    assert_eq!(handle.shutdown(Duration::from_secs(10)), Ok(()));
    drop(kept);
}

#[test]
fn a_server_runs_on_when_its_handle_is_dropped() {
    let handle = Server::bind("127.0.0.1:0")
        .unwrap()
        .get("/", |_| "hello\n")
        .spawn()
        .unwrap();
    let addr = handle.addr();
    drop(handle);
    assert_eq!(Client::connect(addr).get("/").text(), "hello\n");
}

/// A client that is being refused does not delay the shutdown.
#[test]
fn refusals_end_too() {
    let config = Config {
        max_connections: 1,
        ..patient()
    };
    let site = Site::start(config, |server| server);
    let mut admitted = site.server.connect();
    assert_eq!(admitted.get("/hello").status(), 200);
    let mut silent: Vec<Client> = (0..40).map(|_| site.server.connect()).collect();
    let mut asking = site.server.connect();
    asking.request("GET", "/hello", &[], b"");
    assert_eq!(
        Ending::begin(site.handle.clone(), Duration::ZERO).end(),
        Ok(())
    );
    silent.iter_mut().for_each(Client::is_cut);
}

/// A client that asks during the shutdown gets a whole response or none.
#[test]
fn no_answer_is_torn() {
    for _ in 0..5 {
        let site = Site::start(patient(), |server| {
            server.get("/big", |_| "x".repeat(200_000))
        });
        let addr = site.server.addr();
        let (asked, asks) = mpsc::channel();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let asked = asked.clone();
                thread::spawn(move || {
                    while let Ok(mut stream) = TcpStream::connect(addr) {
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        let request = b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                        let _ = stream.write_all(request);
                        let mut answer = Vec::new();
                        match stream.read_to_end(&mut answer) {
                            Ok(0) => break,
                            Ok(_) => assert!(answer.len() > 200_000),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                                assert!(answer.is_empty());
                                break;
                            }
                        }
                        let _ = asked.send(());
                    }
                })
            })
            .collect();
        (0..20).for_each(|_| asks.recv_timeout(PATIENCE).unwrap());
        assert_eq!(site.shut_down().end(), Ok(()));
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn threads_and_sockets_are_gone_afterwards() {
    let name = "threads_and_sockets_are_gone_afterwards";
    let Some(child) = Child::of(name) else {
        let (quit, quits) = mpsc::channel();
        let hub = Hub::new();
        let site = Site::start(patient(), |server| {
            server
                .get("/hub", move |request: &Request| {
                    hub.subscribe(request, "topic")
                })
                .get("/events", |_| {
                    Sse::spawn(|events| {
                        while events.send(Event::data("a")).is_ok() {
                            thread::sleep(Duration::from_millis(1)); // What makes it a stream.
                        }
                    })
                })
                .get("/quit", move |_| {
                    quit.send(()).unwrap();
                    "quitting\n"
                })
        });
        announce(site.server.addr());
        quits.recv().unwrap();
        assert_eq!(site.handle.shutdown(NEVER), Ok(()));
        drop(site);
        return wait_for_parent();
    };
    let open = |target: &str| EventSource::open(child.addr(), target, &[]);
    let streams: Vec<EventSource> = ["/hub", "/events"]
        .into_iter()
        .flat_map(|target| [target; 20])
        .map(open)
        .collect();
    let mut idle: Vec<Client> = (0..20).map(|_| Client::connect(child.addr())).collect();
    for client in &mut idle {
        assert_eq!(client.get("/hello").status(), 200);
    }
    let ours = || {
        let names = child.thread_names().into_iter();
        names.filter(|name| name.starts_with("sse-")).count()
    };
    assert!(ours() > 60, "{:?}", child.thread_names());
    assert!(child.sockets() > 60);

    assert_eq!(
        Client::connect(child.addr()).get("/quit").text(),
        "quitting\n"
    );
    for stream in streams {
        retry_at_the_end(stream);
    }
    idle.iter_mut().for_each(Client::ends);
    eventually(|| child.sockets() == 0);
    eventually(|| ours() == 0);
}
