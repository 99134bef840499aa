//! What a caller sees of a pull while it goes on.

use crate::registry::good;
use crate::server::Server;
use crate::support::{WASM, block_on, options};
use filtergate::image::{Digest, NoProgress, Progress, Source, fetch};
use std::sync::Mutex;

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn push(&self, event: String) {
        self.0.lock().unwrap().push(event);
    }
}

impl Progress for Recorder {
    fn blob_started(&self, id: &str, total: Option<u64>) {
        self.push(format!("{id} of {}", total.unwrap()));
    }
    fn blob_advanced(&self, id: &str, bytes: u64) {
        self.push(format!("{id} +{bytes}"));
    }
    fn blob_finished(&self, id: &str) {
        self.push(format!("{id} done"));
    }
}

#[test]
fn progress_is_told() {
    let server = Server::start(good);
    let reference = format!("{}/acme/filter:v1", server.host());
    let source = Source::parse(&reference).unwrap();
    let recorder = Recorder::default();
    block_on(fetch(&source, &reference, &options(), &recorder)).unwrap();
    let events = recorder.0.into_inner().unwrap();
    let id = Digest::sha256(WASM).short().to_owned();
    let of_module: Vec<_> = events.iter().filter(|e| e.starts_with(&id)).collect();
    assert_eq!(of_module, [&format!("{id} of 8"), &format!("{id} +8"), &format!("{id} done")]);
    assert_eq!(events.iter().filter(|e| e.ends_with("done")).count(), 3);
}

#[test]
fn the_future_can_be_sent() {
    fn assert_send<T: Send>(_: &T) {}
    let source = Source::parse("localhost:1/x").unwrap();
    let options = options();
    assert_send(&fetch(&source, "x", &options, &NoProgress));
}
