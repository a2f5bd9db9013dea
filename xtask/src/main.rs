//! Automation of the project: what a clean clone needs to be tested, checked and generated.
//!
//! It uses nothing but the standard library and other programs. What it installs goes into
//! `target/tools`, or through the system's packages when it runs as root on Debian.

mod reliability;

use std::{
    env, fmt,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const USAGE: &str = "usage: cargo xtask <command>

  test   set up what the tests need, check the tree and run every test
  lint   rustfmt, clippy, rustdoc and cargo deny without the tests
  deny   licences, bans and sources; with --advisories known vulnerabilities too (needs a network)
  bench  measure Rialto beside other systems: --quick (the table) or --full (the curves too); then options of
         `rialto-bench suite`: --rounds N, --only NAME, --write-docs PAGE
  sim    simulate whole nodes: --seeds N [--from S], --seed S [--trace], --mutants; [--topology ring-50]
  reliability  run the tests and write docs/reliability.md; --full: with all seeds, kills and damages
  gen    write the generated files again: openapi.json, docs/reference/reason-codes.md
";

/// Oldest Node.js that the JavaScript peers run on.
const NODE_MIN: (u32, u32) = (20, 14);

/// Programs that the tests need, the Debian package of each, and what for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("cc", "build-essential", "the C parts of aws-lc"),
    ("node", "nodejs", "the JavaScript peers"),
    ("npm", "npm", "the JavaScript peers"),
    ("valgrind", "valgrind", "counting instructions"),
];

/// Programs that `bench` compares with, or needs for that.
const COMPARED: &[(&str, &str, &str)] = &[
    ("nginx", "nginx-light", "what is compared with"),
    ("redis-server", "redis-server", "the store of ilp-node"),
    ("taskset", "util-linux", "to pin each program to a core"),
    ("npm", "npm", "the JavaScript connector"),
];

type Result<T, E = String> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["test"] => test(),
        ["lint"] => summarize(&lint()),
        ["deny"] => deny(&["bans", "licenses", "sources"]),
        ["deny", "--advisories"] => deny(&["bans", "licenses", "sources", "advisories"]),
        ["gen"] => generate(),
        ["reliability"] => reliability::run(false),
        ["reliability", "--full"] => reliability::run(true),
        ["bench", size @ ("--quick" | "--full"), ref options @ ..] => bench(size, options),
        ["sim", ref options @ ..] => simulate(options),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Every step runs even when one before it failed, so that one run shows all there is to mend.
fn test() -> Result<()> {
    set_up_programs()?;
    let mut steps = vec![step("npm ci", || {
        npm(&["ci", "--no-progress"]).map(|()| Counts::NONE)
    })];
    steps.extend(lint());
    if works("cargo-nextest", "--version") {
        steps.push(step("cargo nextest", || {
            counted(cargo(&[
                "nextest",
                "run",
                "--locked",
                "--workspace",
                "--no-fail-fast",
            ]))
        }));
        steps.push(step("doc tests", || {
            counted(cargo(&[
                "test",
                "--locked",
                "--workspace",
                "--doc",
                "--no-fail-fast",
            ]))
        }));
    } else {
        steps.push(step("cargo test", || {
            counted(cargo(&[
                "test",
                "--locked",
                "--workspace",
                "--no-fail-fast",
            ]))
        }));
    }
    steps.push(step("instructions", || {
        count_instructions().map(|()| Counts::NONE)
    }));
    steps.push(step("npm test", || counted(npm_command(&["test"]))));
    summarize(&steps)
}

fn lint() -> Vec<Step> {
    let silent = |mut command: Command| run(&mut command).map(|()| Counts::NONE);
    vec![
        step("rustfmt", || {
            silent(cargo(&["fmt", "--all", "--check"]))?;
            silent(cargo(&[
                "fmt",
                "--manifest-path",
                "fuzz/Cargo.toml",
                "--check",
            ]))
        }),
        step("clippy", || {
            silent(cargo(&[
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]))
        }),
        step("rustdoc", || {
            // With private items: what refers to them is checked too.
            let mut doc = cargo(&["doc", "--locked", "--workspace", "--no-deps"]);
            doc.arg("--document-private-items")
                .env("RUSTDOCFLAGS", "-D warnings");
            silent(doc)
        }),
        step("cargo deny", || {
            deny(&["bans", "licenses", "sources"]).map(|()| Counts::NONE)
        }),
    ]
}

/// Checks what `deny.toml` says; takes two minutes more the first time, to install cargo-deny.
fn deny(checks: &[&str]) -> Result<()> {
    let tools = root().join("target/tools");
    let mut program = PathBuf::from("cargo-deny");
    if !works("cargo-deny", "--version") {
        program = tools.join("bin/cargo-deny");
        if !program.exists() {
            let mut install = cargo(&["install", "--locked", "--version", "^0.20", "cargo-deny"]);
            // A target folder that is shared with other programs may be in the environment.
            install
                .arg("--root")
                .arg(&tools)
                .env_remove("CARGO_TARGET_DIR");
            run(&mut install)?;
        }
    }
    run(Command::new(program)
        .args(["--locked", "--workspace", "check"])
        .args(checks))
}

/// The tests that guard generated files write them when `UPDATE` is set.
fn generate() -> Result<()> {
    for (package, filter) in [("xtask", "reason_codes"), ("rialto-admin", "openapi")] {
        run(cargo(&["test", "--locked", "--package", package, filter]).env("UPDATE", "1"))?;
    }
    Ok(())
}

/// Seeds are many, so the simulator is built for speed.
fn simulate(options: &[&str]) -> Result<()> {
    let mut sim = cargo(&["run", "--locked", "--profile", "sim", "--quiet"]);
    run(sim.args(["--package", "rialto-sim", "--"]).args(options))
}

/// Each part of the packet path against its reference in bench/instructions.json.
fn count_instructions() -> Result<()> {
    let mut micro = cargo(&["run", "--locked", "--release", "--quiet"]);
    run(micro.args(["--package", "rialto-bench", "--", "micro", "--check"]))
}

/// Builds and installs what is compared, and measures. What cannot be had is a gap in the table.
fn bench(size: &str, options: &[&str]) -> Result<()> {
    let gap = |result: Result<()>| {
        if let Err(message) = result {
            eprintln!("== a gap in the table: {message}");
        }
    };
    gap(set_up(COMPARED));
    run(&mut cargo(&[
        "build",
        "--locked",
        "--release",
        "--package",
        "rialto-bench",
    ]))?;
    // As it is shipped.
    run(&mut cargo(&[
        "build",
        "--locked",
        "--profile",
        "dist",
        "--package",
        "rialto",
    ]))?;
    let folder = root().join("target/bench");
    let mut peer = cargo(&["build", "--locked", "--release", "--quiet"]);
    peer.args(["--manifest-path", "bench/ilp-node/Cargo.toml"])
        .args(["--package", "ilp-node-peer", "--package", "redis-cell"])
        .env("CARGO_TARGET_DIR", folder.join("ilp-node"));
    gap(run(&mut peer));
    let modules = folder.join("js");
    let copied = std::fs::create_dir_all(&modules).and_then(|()| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(root().join("bench/js").join(file), modules.join(file))?;
        }
        Ok(())
    });
    copied.map_err(|error| format!("cannot prepare {}: {error}", modules.display()))?;
    gap(run(Command::new("npm")
        .args(["ci", "--no-progress", "--no-audit", "--no-fund"])
        .current_dir(&modules)));
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let program = target.join("release/rialto-bench");
    let routes = folder.join("routes.json");
    run(Command::new(&program)
        .args(["routes", "--write"])
        .arg(&routes))?;
    let mut suite = Command::new(&program);
    suite.arg("suite").arg("--folder").arg(&folder);
    suite.arg("--routes").arg(&routes);
    suite.arg("--rialto").arg(target.join("dist/rialto"));
    if size == "--full" {
        suite.arg("--full");
    }
    run(suite.args(options).current_dir(root()))
}

fn set_up_programs() -> Result<()> {
    set_up(PROGRAMS)?;
    let version = output("node", &["--version"])?;
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map_while(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= NODE_MIN => Ok(()),
        _ => Err(format!(
            "the JavaScript peers need Node.js {}.{} or later, this is {version}",
            NODE_MIN.0, NODE_MIN.1
        )),
    }
}

/// Installs the programs that are missing.
fn set_up(programs: &[(&str, &str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, ..)| !works(program, "--version") && !works(program, "-v"))
        .collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
        let by_hand = format!("apt-get install {}", packages.join(" "));
        let is_root = output("id", &["-u"]).is_ok_and(|id| id == "0");
        if !(is_root && works("apt-get", "--version")) {
            let reasons: Vec<String> = missing
                .iter()
                .map(|(program, _, purpose)| format!("{program} is missing ({purpose})"))
                .collect();
            return Err(format!("{}; on Debian: {by_hand}", reasons.join(", ")));
        }
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        let mut install = Command::new("apt-get");
        install
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages);
        run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    Ok(())
}

/// One line of the summary.
struct Step {
    name: &'static str,
    took: Duration,
    result: Result<Counts>,
}

/// Tests that ran. A step without tests has none.
#[derive(Clone, Copy, Default)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
    const NONE: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 0,
    };
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn step(name: &'static str, work: impl FnOnce() -> Result<Counts>) -> Step {
    eprintln!("\n== {name}");
    let start = Instant::now();
    let result = work();
    if let Err(message) = &result {
        eprintln!("== {name}: {message}");
    }
    Step {
        name,
        took: start.elapsed(),
        result,
    }
}

fn summarize(steps: &[Step]) -> Result<()> {
    let mut total = Counts::NONE;
    let mut failed = Vec::new();
    println!();
    for Step { name, took, result } in steps {
        let outcome = match result {
            Ok(Counts {
                passed: 0,
                failed: 0,
                ..
            }) => "ok".to_owned(),
            Ok(counts) => counts.to_string(),
            Err(message) => format!("FAILED: {message}"),
        };
        println!("{name:<14} {:>4} s  {outcome}", took.as_secs());
        // A step that broke counts as a test that failed.
        let counts = result.as_ref().map_or(
            Counts {
                failed: 1,
                ..Counts::NONE
            },
            |counts| *counts,
        );
        total += counts;
        if counts.failed > 0 {
            failed.push(*name);
        }
    }
    if total.passed + total.failed > 0 {
        println!("\n{total}");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {}", failed.join(", ")))
    }
}

/// Runs tests, shows their output as it comes and adds up what their closing lines say.
fn counted(mut command: Command) -> Result<Counts> {
    let name = text_of(&command);
    let mut counts = Counts::NONE;
    let status = lines_of(&mut command, |line| {
        if let Some(more) = counts_in(line) {
            counts += more;
        }
    })?;
    match (status.success(), counts) {
        (true, Counts { passed: 0, .. }) => Err(format!("{name} ran no tests")),
        (false, Counts { failed: 0, .. }) => Err(format!("{name}: {status}")),
        _ => Ok(counts),
    }
}

/// Runs a command, shows its output as it comes, and hands out each line.
fn lines_of(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let name = text_of(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let (sender, lines) = mpsc::channel();
    let stdout = child
        .stdout
        .take()
        .map(|pipe| forward(pipe, sender.clone()));
    let stderr = child.stderr.take().map(|pipe| forward(pipe, sender));
    for line in lines {
        let _ = writeln!(std::io::stderr(), "{line}");
        each(&line);
    }
    for reader in [stdout, stderr].into_iter().flatten() {
        reader
            .join()
            .map_err(|_| format!("lost the output of {name}"))?;
    }
    child
        .wait()
        .map_err(|error| format!("cannot wait for {name}: {error}"))
}

fn forward(
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if lines.send(text).is_err() {
                return;
            }
        }
    })
}

/// What one line says about tests that ran.
///
/// * nextest: `Summary [ 1.2s] 12 tests run: 11 passed, 1 failed, 2 skipped`
/// * cargo test: `test result: ok. 3 passed; 0 failed; 1 ignored; …`
/// * node: `# pass 5`, or `ℹ pass 5` on a terminal
fn counts_in(line: &str) -> Option<Counts> {
    let line = line.trim_start();
    let list = if let Some(list) = line.strip_prefix("test result: ") {
        list.split_once(". ")?.1
    } else if line.starts_with("Summary [") {
        line.split_once(" run: ")?.1
    } else {
        let (word, number) = line
            .strip_prefix(['#', 'ℹ'])?
            .trim_start()
            .split_once(' ')?;
        let number = number.parse().ok()?;
        return match word {
            "pass" => Some(Counts {
                passed: number,
                ..Counts::NONE
            }),
            "fail" | "cancelled" => Some(Counts {
                failed: number,
                ..Counts::NONE
            }),
            "skipped" => Some(Counts {
                skipped: number,
                ..Counts::NONE
            }),
            _ => None,
        };
    };
    let mut counts = Counts::NONE;
    for item in list.split([',', ';']) {
        let mut words = item.split_whitespace();
        let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse::<u32>), words.next())
        else {
            continue;
        };
        match word {
            "passed" => counts.passed += number,
            "failed" | "timed" => counts.failed += number,
            "skipped" | "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

fn npm_command(arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(root().join("tests/js"));
    command
}

fn npm(arguments: &[&str]) -> Result<()> {
    run(&mut npm_command(arguments))
}

fn run(command: &mut Command) -> Result<()> {
    let name = text_of(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(error) => Err(format!("cannot start {name}: {error}")),
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn works(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The program and its first two arguments, for messages.
fn text_of(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args()).take(3);
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_test_runners() {
        for (line, expected) in [
            (
                "     Summary [   0.112s] 12 tests run: 11 passed (1 slow), 1 failed, 2 skipped",
                "11 passed, 1 failed, 2 skipped",
            ),
            (
                "     Summary [   0.112s] 1 test run: 1 passed, 0 skipped",
                "1 passed, 0 failed, 0 skipped",
            ),
            (
                "test result: FAILED. 3 passed; 1 failed; 4 ignored; 0 measured; 9 filtered out; finished in 0.00s",
                "3 passed, 1 failed, 4 skipped",
            ),
            ("# pass 5", "5 passed, 0 failed, 0 skipped"),
            ("ℹ fail 2", "0 passed, 2 failed, 0 skipped"),
        ] {
            assert_eq!(counts_in(line).expect(line).to_string(), expected);
        }
        for line in [
            "# tests 5",
            "# Subtest: pass 5",
            "running 3 tests",
            "# pass the salt",
            "",
        ] {
            assert!(counts_in(line).is_none(), "{line}");
        }
    }
}
