//! The filter `probe-script` takes each course of `tests/data/scripts` here and in the real Envoys. With
//! `FILTERGATE_RECORD=1` what the Envoys did is kept as fixtures of `tests/scripts.rs`.

#[path = "../support/courses.rs"]
mod courses;

use filtergate::{
    exercise::Exchange,
    parity::{self, Envoy, Setup},
};

use self::courses::Suite;
use crate::{Oracle, Slot, assert_none, check, oracles, prebuilt, root, setup};

/// How often a scenario is tried that differs.
const ATTEMPTS: usize = 3;

#[test]
fn every_course_of_a_stream_is_envoys() {
    let found = std::thread::scope(|scope| {
        let sides: Vec<_> =
            oracles().into_iter().map(|oracle| scope.spawn(|| all(oracle))).collect();
        sides.into_iter().flat_map(|side| side.join().unwrap()).collect::<Vec<_>>()
    });
    assert_none(&found);
}

fn all(oracle: Oracle) -> Vec<String> {
    let _slot = Slot::wait();
    courses::SUITES.iter().flat_map(|suite| differences(&oracle, suite)).collect()
}

fn differences(Oracle { binary, target }: &Oracle, suite: &Suite) -> Vec<String> {
    let module = prebuilt("probe-script");
    let scenarios = suite.scenarios();
    let options = suite.options(target.clone());
    let verdict = check::check(module.to_str().unwrap(), &options);
    let ours = &verdict.roots[0].exchanges;
    assert_eq!(ours.len(), scenarios.len(), "{:?}", verdict.findings);
    let mut setup = Setup {
        buffer_limit_bytes: suite.buffer_limit_bytes,
        http2: suite.http2,
        ..setup(&module, "", "")
    };
    setup.plugin.allow_on_headers_stop_iteration = suite.allow_on_headers_stop_iteration;
    let mut envoy = Envoy::start(binary, &setup).unwrap();
    let release = parity::release(binary).unwrap();
    let mut record = format!(
        "# What filters/c/probe-script did in Envoy {release}, and what client and upstream got.\n"
    );
    let mut found = Vec::new();
    for (scenario, ours) in scenarios.iter().zip(ours) {
        let logged = ours.logs.iter().map(|line| line.message.clone());
        let lines = courses::lines(logged, &parity::our_request(ours, None));
        let name = format!("{target}, {}: {}", suite.name, scenario.name);
        let mut differs = None;
        // On a busy machine what comes from two sides may come in another order: not every time.
        for _ in 0..ATTEMPTS {
            let Some(theirs) = through_envoy(&mut envoy, &scenario.exchange) else {
                differs = Some(format!("{name}: Envoy died"));
                envoy = Envoy::start(binary, &setup).unwrap();
                break;
            };
            differs = courses::difference(&name, &lines, &theirs);
            if differs.is_none() {
                record.push_str(&format!("@ {}\n{}\n", scenario.name, theirs.join("\n")));
                break;
            }
        }
        found.extend(differs);
    }
    if std::env::var_os("FILTERGATE_RECORD").is_some() {
        let file = root().join(format!("tests/data/scripts/{}-envoy-{release}.txt", suite.name));
        std::fs::write(file, record).unwrap();
    }
    found
}

/// What becomes of an exchange through Envoy, in lines; `None` where it dies.
fn through_envoy(envoy: &mut Envoy, exchange: &Exchange) -> Option<Vec<String>> {
    let begun = envoy.log_count();
    let exchanged = envoy.exchange(exchange);
    envoy.rest();
    if envoy.has_ended() {
        return None;
    }
    let entries = envoy.entries(begun);
    let logged = entries.iter().filter_map(|entry| entry.of_module()).map(str::to_owned);
    Some(courses::lines(logged, &parity::their_request(exchanged, &entries)))
}
