//! How the cost of a module grows: with its code, its root_ids, its configuration, the workers, and the
//! body of a request.

use serde::{Deserialize, Serialize};
use wasm_encoder::{CodeSection, FunctionSection, RawSection};
use wasmparser::{BinaryReader, CodeSectionReader, Parser, Payload};

use crate::{
    exercise::{Exchange, Request, Upstream},
    host::Process,
    timing::Stopwatch,
    vm::{Template, VmOptions, on_a_guest_thread},
};

use super::{
    load::{LoadConditions, LoadFailed, compile, load_root},
    phase::{Phase, PhaseClock},
    stats::{median, slope},
    traffic::Traffic,
};

/// Runs of each point.
const RUNS: usize = 5;
/// How many times as much code.
const CODE_FACTORS: [u32; 4] = [1, 2, 4, 8];
/// Code beyond this is not tried.
const MAX_CODE_BYTES: u64 = 64 << 20;
/// How many plugins, and how many workers.
const COUNTS: [u64; 4] = [1, 2, 4, 8];
/// Bytes that the configuration is filled up to.
const CONFIGURATION_BYTES: [usize; 5] = [0, 1 << 10, 16 << 10, 256 << 10, 1 << 20];
/// Bytes of a request's body; the largest is what Envoy buffers for a filter.
const BODY_BYTES: [usize; 4] = [64, 16 << 10, 256 << 10, 1 << 20];
/// Envoy reads so much at once, and hands it to filters as a frame.
const FRAME_BYTES: usize = 16 << 10;

/// What grows, and the costs that grow with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// `code`, `root_ids`, `configuration`, `workers`, `body`.
    pub name: String,
    /// What is measured along it, as `compile`.
    pub cost: String,
    /// Whether x is in bytes; else it is a number of things.
    pub in_bytes: bool,
    /// The points, the smallest x first.
    pub points: Vec<Point>,
    /// CPU time that one more byte or thing costs, nanoseconds.
    pub cpu_ns_each: Option<f64>,
    /// Fuel that it costs.
    pub fuel_each: Option<f64>,
    /// Why it ends where it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remark: Option<String>,
}

/// One measurement along an axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// How much of it.
    pub x: u64,
    /// CPU time, nanoseconds; the median.
    pub cpu_ns: u64,
    /// Fuel, where it is counted.
    pub fuel: Option<u64>,
    /// Bytes of wasm memory, all instances together.
    pub memory_bytes: u64,
}

/// Measures how the cost of a module grows under the first of `conditions`' plugins, and with all of them.
///
/// # Errors
///
/// Where the module does not load.
pub fn scale(
    wasm: &[u8],
    conditions: &LoadConditions,
    is_http: bool,
) -> Result<Vec<Axis>, LoadFailed> {
    on_a_guest_thread(|| {
        let bench = Scale::new(wasm, conditions)?;
        let mut axes = vec![bench.code()?, bench.root_ids()?, bench.configuration()];
        axes.push(bench.workers()?);
        if is_http {
            axes.push(bench.body());
        }
        Ok(axes)
    })
    .map_err(|error| LoadFailed(error.to_string()))?
}

struct Scale<'a> {
    wasm: &'a [u8],
    conditions: &'a LoadConditions,
    template: Template,
    /// The same with fuel counted.
    counting: Template,
    names: bool,
}

impl<'a> Scale<'a> {
    fn new(wasm: &'a [u8], conditions: &'a LoadConditions) -> Result<Self, LoadFailed> {
        let LoadConditions { target, vm, .. } = conditions;
        let clock = &mut PhaseClock::default();
        let (template, names) = compile(wasm, target, vm, None, clock)?;
        let vm = VmOptions { fuel: true, ..vm.clone() };
        let (counting, _) = compile(wasm, target, &vm, None, clock)?;
        Ok(Self { wasm, conditions, template, counting, names })
    }

    fn process(&self) -> Process {
        Process::within(self.conditions.environment.clone())
    }

    fn code(&self) -> Result<Axis, LoadFailed> {
        let LoadConditions { target, vm, .. } = self.conditions;
        let mut axis = Axis::new("code", "compile", true);
        for factor in CODE_FACTORS {
            let bytes = self.template.facts().code_bytes * u64::from(factor);
            let Some(wasm) = with_more_code(self.wasm, factor).filter(|_| bytes <= MAX_CODE_BYTES)
            else {
                axis.remark = Some("more code than this was not tried".to_owned());
                break;
            };
            let mut times = Vec::new();
            let mut code_bytes = 0;
            for _ in 0..RUNS {
                let mut clock = PhaseClock::default();
                let (template, _) = compile(&wasm, target, vm, None, &mut clock)?;
                code_bytes = template.facts().code_bytes;
                times.extend(clock.get(Phase::Compile).map(|time| time.cpu_ns));
            }
            axis.push(code_bytes, &times, None, 0);
        }
        Ok(axis.with_slopes())
    }

    fn root_ids(&self) -> Result<Axis, LoadFailed> {
        let plugins = &self.conditions.plugins;
        let mut axis = Axis::new("root_ids", "instantiate to configure", false);
        if (plugins.len() as u64) < COUNTS[COUNTS.len() - 1] {
            axis.remark =
                Some("the same root_ids over again where there are not as many".to_owned());
        }
        for count in COUNTS {
            let mut times = Vec::new();
            let mut memory = 0;
            for _ in 0..RUNS {
                memory = 0;
                let mut clock = PhaseClock::default();
                for plugin in plugins.iter().cycle().take(count as usize) {
                    let process = self.process();
                    let loaded =
                        load_root(&self.template, self.names, plugin, process, &mut clock)?;
                    memory += loaded.instance.memory_bytes();
                }
                times.push(clock.total().cpu_ns);
            }
            axis.push(count, &times, None, memory);
        }
        Ok(axis.with_slopes())
    }

    fn configuration(&self) -> Axis {
        let mut axis = Axis::new("configuration", "configure", true);
        let own = self.conditions.plugins[0].configuration.len();
        for size in CONFIGURATION_BYTES {
            if size > 0 && size <= own {
                continue;
            }
            let mut plugin = self.conditions.plugins[0].clone();
            // Blanks behind it change no JSON.
            plugin.configuration.resize(own.max(size), b' ');
            let mut times = Vec::new();
            for _ in 0..RUNS {
                let mut clock = PhaseClock::default();
                let process = self.process();
                let run = load_root(&self.template, self.names, &plugin, process, &mut clock);
                let Ok(loaded) = run else { break };
                times.extend(clock.get(Phase::Configure).map(|time| time.cpu_ns));
                drop(loaded);
            }
            let mut clock = PhaseClock::default();
            let process = self.process().reproducible();
            let counted = load_root(&self.counting, self.names, &plugin, process, &mut clock);
            let (Ok(loaded), RUNS) = (counted, times.len()) else {
                let size = plugin.configuration.len();
                axis.remark = Some(format!("with blanks up to {size} bytes the module refuses it"));
                break;
            };
            let ends = (clock.end_of(Phase::Configure), clock.end_of(Phase::VmStart));
            let fuel = match ends {
                (Some(after), Some(before)) => (after.counters - before.counters).fuel,
                _ => None,
            };
            let memory = loaded.instance.memory_bytes();
            axis.push(plugin.configuration.len() as u64, &times, fuel, memory);
        }
        axis.with_slopes()
    }

    fn workers(&self) -> Result<Axis, LoadFailed> {
        let plugin = &self.conditions.plugins[0];
        let mut axis = Axis::new("workers", "instantiate to configure", false);
        for count in COUNTS {
            let mut times = Vec::new();
            let mut memory = 0;
            for _ in 0..RUNS {
                let mut clock = PhaseClock::default();
                let mut workers = Vec::new();
                for _ in 0..count {
                    let process = self.process();
                    workers.push(load_root(
                        &self.template,
                        self.names,
                        plugin,
                        process,
                        &mut clock,
                    )?);
                }
                memory = workers.iter().map(|worker| worker.instance.memory_bytes()).sum();
                times.push(clock.total().cpu_ns);
            }
            axis.push(count, &times, None, memory);
        }
        Ok(axis.with_slopes())
    }

    fn body(&self) -> Axis {
        let plugin = &self.conditions.plugins[0];
        let mut axis = Axis::new("body", "one POST", true);
        for size in BODY_BYTES {
            let traffic = Traffic::Http(vec![post(size)]);
            let cost = || -> Result<_, String> {
                let clock = &mut PhaseClock::default();
                let load = |template, process| {
                    load_root(template, self.names, plugin, process, clock)
                        .map_err(|LoadFailed(why)| why)
                };
                let mut load = load;
                let mut counted = load(&self.counting, self.process().reproducible())?;
                let mut worker = load(&self.template, self.process())?;
                // The first one makes room in the module's memory.
                traffic.run(0, &mut counted)?;
                let before = counted.instance.counters();
                traffic.run(0, &mut counted)?;
                let fuel = (counted.instance.counters() - before).fuel;
                traffic.run(0, &mut worker)?;
                let mut times = Vec::new();
                for _ in 0..RUNS {
                    let watch = Stopwatch::thread();
                    traffic.run(0, &mut worker)?;
                    times.push(watch.elapsed_ns());
                }
                Ok((times, fuel, counted.instance.memory_bytes()))
            };
            match cost() {
                Ok((times, fuel, memory)) => axis.push(size as u64, &times, fuel, memory),
                Err(why) => {
                    axis.remark = Some(format!("with a body of {size} bytes {why}"));
                    break;
                }
            }
        }
        axis.with_slopes()
    }
}

/// A POST with a body of so many bytes, in the frames in which Envoy reads it.
fn post(size: usize) -> Exchange {
    let frames: Vec<String> =
        (0..size).step_by(FRAME_BYTES).map(|at| "x".repeat(FRAME_BYTES.min(size - at))).collect();
    Exchange {
        name: "body".to_owned(),
        request: Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            host: "example.com".to_owned(),
            headers: vec![("content-length".to_owned(), size.to_string())],
            frames: frames.into_iter().chain([String::new()]).collect(),
            trailers: Vec::new(),
            abandoned: false,
        },
        upstream: Upstream::default(),
        metadata: Vec::new(),
    }
}

impl Axis {
    fn new(name: &str, cost: &str, in_bytes: bool) -> Self {
        Self {
            name: name.to_owned(),
            cost: cost.to_owned(),
            in_bytes,
            points: Vec::new(),
            cpu_ns_each: None,
            fuel_each: None,
            remark: None,
        }
    }

    fn push(&mut self, x: u64, times: &[u64], fuel: Option<u64>, memory_bytes: u64) {
        let cpu_ns = median(times).unwrap_or(0);
        self.points.push(Point { x, cpu_ns, fuel, memory_bytes });
    }

    fn with_slopes(mut self) -> Self {
        let line = |y: fn(&Point) -> Option<f64>| {
            let points = self.points.iter();
            let points: Vec<_> =
                points.filter_map(|point| Some((point.x as f64, y(point)?))).collect();
            slope(&points)
        };
        self.cpu_ns_each = line(|point| Some(point.cpu_ns as f64));
        self.fuel_each = line(|point| point.fuel.map(|fuel| fuel as f64));
        self
    }
}

/// The module with all its function bodies so many times: each copy is a function that nothing calls, so
/// that it does the same and has that much more to compile. `None` where it cannot be read.
fn with_more_code(wasm: &[u8], times: u32) -> Option<Vec<u8>> {
    let mut module = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::FunctionSection(reader) => {
                let types: Vec<u32> = reader.into_iter().collect::<Result<_, _>>().ok()?;
                let mut functions = FunctionSection::new();
                for _ in 0..times {
                    types.iter().for_each(|index| {
                        functions.function(*index);
                    });
                }
                module.section(&functions);
            }
            Payload::CodeSectionStart { range, .. } => {
                let reader = BinaryReader::new(wasm.get(range.clone())?, range.start);
                let bodies: Vec<_> = CodeSectionReader::new(reader)
                    .ok()?
                    .into_iter()
                    .collect::<Result<_, _>>()
                    .ok()?;
                let mut code = CodeSection::new();
                for _ in 0..times {
                    for body in &bodies {
                        code.raw(wasm.get(body.range())?);
                    }
                }
                module.section(&code);
            }
            Payload::CodeSectionEntry(_) => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    module.section(&RawSection { id, data: wasm.get(range)? });
                }
            }
        }
    }
    Some(module.finish())
}

#[cfg(test)]
mod tests {
    use crate::{host::Plugin, target::Target};

    use super::*;

    fn read(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/filters/prebuilt");
        std::fs::read(format!("{folder}/{name}.wasm")).unwrap()
    }

    #[test]
    fn copies_of_the_code_are_a_valid_module() {
        for name in ["limit-body", "deny-path", "add-header"] {
            let wasm = read(name);
            let larger = with_more_code(&wasm, 3).unwrap();
            crate::module::validate(&larger, crate::module::Engine::EnvoyV8).unwrap();
            assert!(larger.len() > wasm.len(), "{name}");
            assert_eq!(with_more_code(&wasm, 1).unwrap().len(), wasm.len(), "{name}");
        }
        assert_eq!(with_more_code(b"\0asm\x01\0\0\0\x03", 2), None);
    }

    #[test]
    fn each_axis_has_its_points() {
        let conditions = LoadConditions {
            target: Target::default(),
            vm: VmOptions::default(),
            plugins: vec![Plugin::default()],
            environment: Default::default(),
        };
        let axes = scale(&read("noop"), &conditions, true).unwrap();
        let points: Vec<_> =
            axes.iter().map(|axis| (axis.name.as_str(), axis.points.len())).collect();
        assert_eq!(
            points,
            [("code", 4), ("root_ids", 4), ("configuration", 5), ("workers", 4), ("body", 4)]
        );
        // What it copies and does not run costs no fuel.
        assert!(axes[4].points.iter().all(|point| point.fuel.is_some()));
        let code = &axes[0].points;
        assert!(code[3].x > 4 * code[0].x);
    }
}
