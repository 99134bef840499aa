//! The filter `probe-script` takes each course of `scenarios.txt` here and in the real Envoys. With
//! `FILTERGATE_RECORD=1` what the Envoys did is kept as fixtures of `tests/scripts.rs`.

#[path = "../support/courses.rs"]
mod courses;

use filtergate::{
    CheckOptions,
    parity::{self, Envoy},
};

use crate::{Oracle, Slot, assert_none, check, oracles, prebuilt, root, setup};

#[test]
fn every_course_of_a_stream_is_envoys() {
    let found = std::thread::scope(|scope| {
        let sides: Vec<_> =
            oracles().into_iter().map(|oracle| scope.spawn(|| differences(oracle))).collect();
        sides.into_iter().flat_map(|side| side.join().unwrap()).collect::<Vec<_>>()
    });
    assert_none(&found);
}

fn differences(Oracle { binary, target }: Oracle) -> Vec<String> {
    let _slot = Slot::wait();
    let module = prebuilt("probe-script");
    let scenarios = courses::scenarios();
    let options = CheckOptions {
        target: target.clone(),
        controls: false,
        exchanges: scenarios.iter().map(|scenario| scenario.exchange.clone()).collect(),
        ..CheckOptions::default()
    };
    let verdict = check::check(module.to_str().unwrap(), &options);
    let ours = &verdict.roots[0].exchanges;
    assert_eq!(ours.len(), scenarios.len(), "{:?}", verdict.findings);
    let mut envoy = Envoy::start(&binary, &setup(&module, "", "")).unwrap();
    let release = parity::release(&binary).unwrap();
    let mut record = format!(
        "# What filters/c/probe-script did in Envoy {release}, and what client and upstream got.\n"
    );
    let mut found = Vec::new();
    for (scenario, ours) in scenarios.iter().zip(ours) {
        let begun = envoy.log_count();
        let exchanged = envoy.exchange(&scenario.exchange);
        envoy.rest();
        if envoy.has_ended() {
            found.push(format!("{target}: {}: Envoy died", scenario.name));
            envoy = Envoy::start(&binary, &setup(&module, "", "")).unwrap();
            continue;
        }
        let entries = envoy.entries(begun);
        let logged = entries.iter().filter_map(|entry| entry.of_module()).map(str::to_owned);
        let theirs = courses::lines(logged, &parity::their_request(exchanged, &entries));
        record.push_str(&format!("@ {}\n{}\n", scenario.name, theirs.join("\n")));
        let logged = ours.logs.iter().map(|line| line.message.clone());
        let lines = courses::lines(logged, &parity::our_request(ours, None));
        let name = format!("{target}: {}", scenario.name);
        found.extend(courses::difference(&name, &lines, &theirs));
    }
    if std::env::var_os("FILTERGATE_RECORD").is_some() {
        let file = root().join(format!("tests/data/scripts/envoy-{release}.txt"));
        std::fs::write(file, record).unwrap();
    }
    found
}
