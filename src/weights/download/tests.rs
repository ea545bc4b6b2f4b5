//! Downloads from a local test server.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::super::tests::{Machine, weights_of};
use super::*;

/// A response: a head, a body that may be shorter than the head says, and a pause before the
/// connection closes.
struct Answer {
    head: String,
    body: Vec<u8>,
    silence: Duration,
}

impl Answer {
    fn new(status: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        Self { head, body: body.to_vec(), silence: Duration::ZERO }
    }

    fn whole(file: &[u8]) -> Self {
        Self::new("200 OK", &format!("Content-Length: {}\r\n", file.len()), file)
    }

    /// The response of a server that supports ranges.
    fn ranged(file: &[u8], range: Option<usize>) -> Self {
        match range {
            None => Self::whole(file),
            Some(from) if from >= file.len() => {
                Self::new("416 Range Not Satisfiable", "Content-Length: 0\r\n", b"")
            }
            Some(from) => {
                let (last, all) = (file.len() - 1, file.len());
                let headers = format!(
                    "Content-Range: bytes {from}-{last}/{all}\r\nContent-Length: {}\r\n",
                    all - from
                );
                Self::new("206 Partial Content", &headers, &file[from..])
            }
        }
    }

    /// The same, but the connection closes after `bytes` bytes of the body.
    fn cut(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    fn silent(mut self, duration: Duration) -> Self {
        self.silence = duration;
        self
    }
}

/// A request: its path, and the start of its range.
type Asked = (String, Option<usize>);

/// A server that runs as long as the test's process.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `answer` gets the number of the request and the start of its range.
    fn new(answer: impl Fn(usize, Option<usize>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/models/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (log.clone(), answer.clone());
                // The client may be gone: the test checks what arrived.
                thread::spawn(move || serve(stream?, &log, &*answer));
            }
        });
        Self { url, asked }
    }

    fn ranges(&self) -> Vec<Option<usize>> {
        self.asked.lock().unwrap().iter().map(|(_, range)| *range).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(usize, Option<usize>) -> Answer,
) -> std::io::Result<()> {
    let (mut path, mut range) = (String::new(), None);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("get ") {
            path = rest.split(' ').next().unwrap().to_owned();
        }
        if let Some(rest) = line.strip_prefix("range: bytes=") {
            range = Some(rest.trim_end_matches('-').parse().unwrap());
        }
        if line.is_empty() {
            break;
        }
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push((path, range));
        log.len() - 1
    };
    let answer = answer(number, range);
    stream.write_all(answer.head.as_bytes())?;
    stream.write_all(&answer.body)?;
    thread::sleep(answer.silence);
    Ok(())
}

fn client() -> Client {
    // Requests to 127.0.0.1 must not go through this machine's proxy.
    let config = Agent::config_builder().proxy(None);
    let config = config.timeout_per_read(Some(Duration::from_millis(500)));
    Client { agent: agent(config), attempts: 4, pause: Duration::from_millis(1) }
}

/// The content of a weight file, larger than the read buffer.
fn file() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn machine() -> Machine {
    Machine::new(&["PADIM_CACHE_DIR"])
}

fn cached(machine: &Machine, weights: &PublishedWeights, ending: &str) -> PathBuf {
    machine.environment.cache().unwrap().join(format!("{}{ending}", weights.file))
}

/// Fetches, and checks that the file has its name only when it is complete.
fn fetch(machine: &Machine, weights: &PublishedWeights) -> Result<Vec<FetchProgress>> {
    let target = cached(machine, weights, "");
    let mut progress = Vec::new();
    let fetched = weights.fetch(&machine.environment, &client(), |now| {
        assert!(!target.exists());
        progress.push(now);
        ControlFlow::Continue(())
    });
    assert_eq!(target.exists(), fetched.is_ok());
    assert_eq!(fetched?, target);
    assert!(fs::read(&target).unwrap() == file());
    assert!(!cached(machine, weights, ".part").exists());
    Ok(progress)
}

fn assert_fails(machine: &Machine, weights: &PublishedWeights, parts: &[&str]) {
    let error = fetch(machine, weights).unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::Download { .. }), "{error:?}");
    for part in parts.iter().chain([&&*weights.file]) {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn a_file_is_downloaded_once() {
    let (machine, server) = (machine(), Server::new(|_, range| Answer::ranged(&file(), range)));
    let weights = weights_of(&file(), &server.url);
    let progress = fetch(&machine, &weights).unwrap();
    assert_eq!(progress[0], FetchProgress { done: 0, total: Some(300_000) });
    assert_eq!(progress.last().unwrap().done, 300_000);
    assert!(progress.is_sorted_by(|a, b| a.done < b.done && a.total == b.total));
    assert_eq!(fetch(&machine, &weights).unwrap(), [], "found");
    assert_eq!(*server.asked.lock().unwrap(), [(format!("/models/{}", weights.file), None)]);
    assert_eq!(weights.find_in(&machine.environment).unwrap(), cached(&machine, &weights, ""));
}

#[test]
fn a_cut_connection_is_continued() {
    let server = Server::new(|number, range| {
        let answer = Answer::ranged(&file(), range);
        if number < 2 { answer.cut(100_000) } else { answer }
    });
    let progress = fetch(&machine(), &weights_of(&file(), &server.url)).unwrap();
    assert_eq!(server.ranges(), [None, Some(100_000), Some(200_000)]);
    assert!(progress.is_sorted_by_key(|now| now.done));
    assert!(progress.iter().all(|now| now.total == Some(300_000)));
    assert_eq!(progress.last().unwrap().done, 300_000);
}

#[test]
fn silence_is_a_cut_connection() {
    let server = Server::new(|number, range| match number {
        0 => Answer::ranged(&file(), range).cut(100_000).silent(Duration::from_secs(20)),
        _ => Answer::ranged(&file(), range),
    });
    fetch(&machine(), &weights_of(&file(), &server.url)).unwrap();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
}

#[test]
fn what_an_earlier_fetch_left_is_continued() {
    let server = Server::new(|_, range| Answer::ranged(&file(), range));
    let weights = weights_of(&file(), &server.url);
    let part = |bytes: &[u8]| {
        let machine = machine();
        machine.put(&format!("PADIM_CACHE_DIR/{}.part", weights.file), bytes);
        fetch(&machine, &weights).unwrap()
    };
    let progress = part(&file()[..120_000]);
    assert_eq!(progress[0], FetchProgress { done: 120_000, total: Some(300_000) });
    assert_eq!(part(&file()), [], "only the new name was missing");
    part(&[7; 300_001]);
    assert_eq!(server.ranges(), [Some(120_000), Some(300_001), None], "too long: from the start");
}

#[test]
fn a_server_without_ranges_starts_over() {
    let server = Server::new(|number, _| match number {
        0 => Answer::whole(&file()).cut(200_000),
        _ => Answer::whole(&file()),
    });
    let progress = fetch(&machine(), &weights_of(&file(), &server.url)).unwrap();
    assert_eq!(server.ranges(), [None, Some(200_000)]);
    assert_eq!(progress.iter().filter(|now| now.done == 0).count(), 2);
}

#[test]
fn another_range_than_was_asked_for_is_not_taken() {
    let server = Server::new(|number, range| match number {
        0 => Answer::whole(&file()).cut(200_000),
        1 => Answer::ranged(&file(), Some(100_000)),
        _ => Answer::ranged(&file(), range),
    });
    fetch(&machine(), &weights_of(&file(), &server.url)).unwrap();
    assert_eq!(server.ranges(), [None, Some(200_000), None]);
}

#[test]
fn a_wrong_hash_is_refused_and_nothing_kept() {
    let server = Server::new(|number, range| match number {
        0 => Answer::whole(b"<html>Please log in</html>"),
        _ => Answer::ranged(&file(), range),
    });
    let (machine, weights) = (machine(), weights_of(&file(), &server.url));
    assert_fails(&machine, &weights, &[&weights.digits, "got 39bb8635"]);
    assert!(!cached(&machine, &weights, ".part").exists());
    fetch(&machine, &weights).unwrap();
    assert_eq!(server.ranges(), [None, None]);
}

#[test]
fn a_wrong_length_is_refused() {
    // The server announces ten bytes more than it has.
    let server = Server::new(|_, range| {
        let promised = 300_010 - range.unwrap_or(0);
        let range = range
            .map_or(String::new(), |from| format!("Content-Range: bytes {from}-300009/300010\r\n"));
        let (status, from) = match range.is_empty() {
            true => ("200 OK", 0),
            false => ("206 Partial Content", 300_000),
        };
        let headers = format!("{range}Content-Length: {promised}\r\n");
        Answer::new(status, &headers, &file()[from..])
    });
    let (machine, weights) = (machine(), weights_of(b"another file", &server.url));
    assert_fails(&machine, &weights, &["300000 of 300010 bytes", "attempt 4"]);
    assert_eq!(server.ranges()[1..], [Some(300_000); 3]);
    // Without a reported length, the hash reveals the missing bytes.
    let server = Server::new(|_, _| Answer::new("200 OK", "", &file()[..200_000]));
    assert_fails(&machine, &weights_of(&file(), &server.url), &["SHA-256"]);
    let server = Server::new(|_, _| Answer::new("200 OK", "", &file()));
    let progress = fetch(&machine, &weights_of(&file(), &server.url)).unwrap();
    assert_eq!(progress.last().unwrap(), &FetchProgress { done: 300_000, total: None });
}

#[test]
fn redirects_are_followed_and_counted() {
    let store = Server::new(|_, range| Answer::ranged(&file(), range));
    let elsewhere = format!("Location: {}store/file\r\nContent-Length: 0\r\n", store.url);
    let server = Server::new(move |_, _| Answer::new("302 Found", &elsewhere, b""));
    let (machine, weights) = (machine(), weights_of(&file(), &server.url));
    machine.put(&format!("PADIM_CACHE_DIR/{}.part", weights.file), &file()[..1000]);
    fetch(&machine, &weights).unwrap();
    assert_eq!(*store.asked.lock().unwrap(), [("/models/store/file".to_owned(), Some(1000))]);

    let server = Server::new(|_, _| {
        Answer::new("302 Found", "Location: /models/again\r\nContent-Length: 0\r\n", b"")
    });
    let other = weights_of(b"another file", &server.url);
    assert_fails(&machine, &other, &["redirects"]);
    assert_eq!(server.asked.lock().unwrap().len(), 6, "and not tried again");
}

#[test]
fn an_encrypted_address_does_not_lead_to_an_unencrypted_one() {
    // `HTTP://` is not the allowed prefix `http://`, but ureq reads it as http.
    let server = Server::new(|_, range| Answer::ranged(&file(), range));
    let weights = weights_of(&file(), &server.url.replace("http://", "HTTP://"));
    assert_fails(&machine(), &weights, &["https"]);
    assert_eq!(server.ranges(), []);
}

#[test]
fn errors_of_the_server_are_told() {
    let missing = Server::new(|_, _| Answer::new("404 Not Found", "Content-Length: 0\r\n", b""));
    let (machine, weights) = (machine(), weights_of(&file(), &missing.url));
    assert_fails(&machine, &weights, &["404 Not Found"]);
    assert_eq!(missing.ranges(), [None], "asked once");

    let busy = Server::new(|number, range| match number {
        0 => Answer::new("503 Service Unavailable", "Content-Length: 0\r\n", b""),
        _ => Answer::ranged(&file(), range),
    });
    fetch(&machine, &weights_of(&file(), &busy.url)).unwrap();
    assert_eq!(busy.ranges(), [None, None], "asked again");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let weights = weights_of(b"another file", &format!("http://me:secret@{closed}/"));
    assert_fails(&machine, &weights, &["refused", &format!("http://{closed}/")]);
}

#[test]
fn without_a_cache_there_is_nowhere_to_put_it() {
    let machine = Machine::new(&[]);
    let weights = weights_of(&file(), "http://127.0.0.1:9/");
    let error =
        weights.fetch(&machine.environment, &client(), |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("PADIM_CACHE_DIR"), "{error}");
}

#[test]
fn threads_that_fetch_at_once_download_once() {
    let server = Server::new(|number, range| match number {
        0 => Answer::ranged(&file(), range).cut(100_000).silent(Duration::from_millis(200)),
        _ => Answer::ranged(&file(), range),
    });
    let (machine, weights) = (machine(), weights_of(&file(), &server.url));
    let fetch =
        || weights.fetch(&machine.environment, &client(), |_| ControlFlow::Continue(())).unwrap();
    let paths: Vec<PathBuf> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(paths, vec![cached(&machine, &weights, ""); 4]);
    assert!(fs::read(&paths[0]).unwrap() == file());
    assert_eq!(server.ranges(), [None, Some(100_000)]);
}

/// What the child processes below run. In a normal test run it does nothing.
#[test]
fn a_process_that_fetches() {
    if let Some(file) = std::env::var_os("PADIM_TEST_FETCH") {
        let weights = Weights::named(file.to_str().unwrap(), "http://127.0.0.1:9/").unwrap();
        weights.fetch().unwrap();
    }
}

fn process(machine: &Machine, weights: &PublishedWeights) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "weights::download::tests::a_process_that_fetches"]);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env_remove("PADIM_WEIGHTS_DIR");
    command.env("PADIM_CACHE_DIR", machine.environment.cache().unwrap());
    command.env("PADIM_WEIGHTS_URL", &weights.base_url);
    command.env("PADIM_TEST_FETCH", &weights.file).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn processes_that_fetch_at_once_download_once() {
    let server = Server::new(|_, range| {
        thread::sleep(Duration::from_millis(300));
        Answer::ranged(&file(), range)
    });
    let (machine, weights) = (machine(), weights_of(&file(), &server.url));
    let processes: Vec<Child> = (0..3).map(|_| process(&machine, &weights)).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(fetch(&machine, &weights).unwrap(), [], "it is there");
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_killed_process_is_continued_by_the_next() {
    let server = Server::new(|number, range| match number {
        0 => Answer::ranged(&file(), range).cut(100_000).silent(Duration::from_secs(20)),
        _ => Answer::ranged(&file(), range),
    });
    let (machine, weights) = (machine(), weights_of(&file(), &server.url));
    let mut killed = process(&machine, &weights);
    let part = cached(&machine, &weights, ".part");
    let begun = Instant::now();
    while fs::metadata(&part).map_or(0, |part| part.len()) < 100_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it has not begun");
        thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    fetch(&machine, &weights).unwrap();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
}
