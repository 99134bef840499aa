//! The TCP probe here and in a real Envoy.

use std::{io::Write as _, path::PathBuf, process::Command};

use filtergate::{
    exercise::Filter,
    parity::{Entry, Envoy, Setup, release},
};

use crate::{
    Oracle, Slot, assert_none, oracles, setup,
    support_tcp::{self as tcp, Group, Section},
};

/// What Envoy makes of a group.
fn there(binary: &std::path::Path, group: &Group) -> Vec<Section> {
    let _slot = Slot::wait();
    let plugin =
        Setup { filter: Filter::Network, ..setup(&tcp::probe(), "", &group.configuration) };
    let mut envoy = Envoy::start(binary, &plugin).unwrap();
    assert!(envoy.loads(), "{:?}", envoy.entries(0));
    let sections = group.connections.iter().map(|connection| {
        envoy.rest();
        let begun = envoy.log_count();
        let connected = envoy.connection(connection).unwrap();
        let entries = envoy.entries(begun);
        let log = entries.iter().filter_map(Entry::of_module).map(str::to_owned);
        let upstream = connected.upstream.as_ref();
        Section::new(group, &connected.name, log, &connected.client, upstream)
    });
    sections.collect()
}

/// `FILTERGATE_RECORD=FOLDER` also writes what Envoy did to `FOLDER/envoy-RELEASE.txt.gz`, as
/// `tests/data/tcp` has it.
fn record(release: &str, sections: &[Section]) {
    let Some(folder) = std::env::var_os("FILTERGATE_RECORD") else { return };
    let file = PathBuf::from(folder).join(format!("envoy-{release}.txt.gz"));
    let file = std::fs::File::create(file).unwrap();
    let mut file = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    let date = Command::new("date").arg("+%F").output().unwrap().stdout;
    let date = String::from_utf8(date).unwrap();
    let what = format!("What filters/c/probe-tcp logged in Envoy {release} on connections.json");
    writeln!(file, "# {what}, recorded {}.", date.trim()).unwrap();
    for Section { title, lines } in sections {
        writeln!(file, "@ {title}\n{}", lines.join("\n")).unwrap();
    }
    file.finish().unwrap();
}

fn compare(Oracle { binary, target }: &Oracle) -> Vec<String> {
    let (mut here, mut envoy) = (Vec::new(), Vec::new());
    for group in tcp::groups() {
        here.extend(tcp::here(target, &group));
        envoy.extend(there(binary, &group));
    }
    record(&release(binary).unwrap(), &envoy);
    let differences = tcp::differences(&here, &envoy).into_iter();
    differences.map(|difference| format!("{target}: {difference}")).collect()
}

#[test]
fn connections() {
    let oracles = oracles();
    // Nearly all of the time goes into waiting for a log to rest.
    let found: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            oracles.iter().map(|oracle| scope.spawn(move || compare(oracle))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_none(&found);
}
