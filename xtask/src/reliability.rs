//! `cargo xtask reliability`: runs the tests and writes what they tried into the book.
//!
//! A test that tries many cases says so in its output, in a line of three parts:
//!
//! ```text
//! reliability: <area> | <what was run> | <figure>
//! ```
//!
//! A run that fails is in the table as well: as failed.

use std::{collections::BTreeSet, env, fs, process::Command, thread};

use super::{Result, cargo, lines_of, output, root};

/// What begins the line of a test.
const MARK: &str = "reliability: ";

/// Where the table is.
const PAGE: &str = "docs/reliability.md";

/// What of the suite's tests runs more often when it is asked to.
const MORE: &[(&str, &str)] = &[
    ("RIALTO_KILL_ROUNDS", "1000"),
    ("RIALTO_WRONG_TOKENS", "1000000"),
];

/// What the page has to speak of: tests that no longer say what they tried leave a gap in it, and that
/// is a failure.
const AREAS: &[&str] = &[
    "arithmetic",
    "authentication",
    "auto-peering",
    "backup",
    "certificates",
    "channel kills",
    "channel kills, processes",
    "corpora",
    "disk",
    "doctor",
    "drain",
    "hostile peers",
    "ilp-settlement-core 0.1.1",
    "interop",
    "invite",
    "journal",
    "kill",
    "letter shop",
    "overload",
    "payments",
    "races",
    "rafiki",
    "rates",
    "refusals",
    "routing",
    "settlement",
    "settlement kills",
    "simulation",
    "simulation, channels",
    "simulation, power cuts",
    "simulation, settlement",
    "simulation, teeth",
    "smuggling",
    "tokens",
    "tutorial",
    "tutorial of the letter shop",
];

/// How nextest shows what a test that passed has written.
const NEXTEST: &[&str] = &[
    "nextest",
    "run",
    "--locked",
    "--no-fail-fast",
    "--color",
    "never",
    "--status-level",
    "pass",
    "--final-status-level",
    "none",
    "--success-output",
    "immediate",
    "--failure-output",
    "immediate",
];

/// Runs everything, or with `is_full` also what takes too long for every day, and writes the page.
pub(crate) fn run(is_full: bool) -> Result<()> {
    let mut rows = Vec::new();
    let mut suite = cargo(NEXTEST);
    suite.arg("--workspace");
    if is_full {
        suite.envs(MORE.iter().copied());
    }
    collect(&mut rows, "suite", "cargo nextest run --workspace", suite);
    if is_full {
        let mut torture = cargo(NEXTEST);
        torture
            .args([
                "--cargo-profile",
                "sim",
                "--package",
                "rialto-journal",
                "torture",
            ])
            .env("RIALTO_TORTURE", "full");
        let name =
            "RIALTO_TORTURE=full cargo nextest run --cargo-profile sim -p rialto-journal torture";
        collect(&mut rows, "journal", name, torture);
        for (name, options) in [
            ("cargo xtask sim --seeds 20000", &["--seeds", "20000"][..]),
            ("cargo xtask sim --mutants", &["--mutants"]),
        ] {
            let mut simulator = cargo(&["xtask", "sim"]);
            simulator.args(options);
            collect(&mut rows, "simulator", name, simulator);
        }
    }
    rows.extend(gaps(&rows));
    let failed = rows.iter().filter(|row| row.failed).count();
    let page = page(&rows, &header(is_full)?);
    fs::write(root().join(PAGE), page).map_err(|error| format!("cannot write {PAGE}: {error}"))?;
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} failed: see {PAGE}")),
    }
}

/// Runs a command and takes over its rows. What ran before under the same name is replaced: it was
/// the smaller run.
fn collect(rows: &mut Vec<Row>, area: &str, name: &str, mut command: Command) {
    eprintln!("\n== {name}");
    let mut collector = Collector::new(name);
    let status = lines_of(&mut command, |line| collector.line(line));
    let failure = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(message) => Some(message),
    };
    let new = collector.end(area, failure);
    let by: BTreeSet<_> = new.iter().map(|row| row.by.clone()).collect();
    rows.retain(|row| !by.contains(&row.by));
    rows.extend(new);
}

/// A row for each area that nothing was said of.
fn gaps(rows: &[Row]) -> Vec<Row> {
    let is_missing = |area: &&&str| rows.iter().all(|row| row.area != **area);
    let gap = |area: &&str| Row {
        area: (*area).to_owned(),
        what: "all of it".to_owned(),
        figure: "no test said anything".to_owned(),
        by: "cargo xtask reliability".to_owned(),
        failed: true,
    };
    AREAS.iter().filter(is_missing).map(gap).collect()
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    area: String,
    what: String,
    figure: String,
    /// The test or the command that said so.
    by: String,
    failed: bool,
}

/// Reads the output of a command as it comes.
struct Collector {
    command: String,
    /// The test whose output is being read, and whether it failed.
    test: Option<(String, bool)>,
    rows: Vec<Row>,
    last: String,
}

impl Collector {
    fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            test: None,
            rows: Vec::new(),
            last: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        if let Some((test, failed)) = status_in(line) {
            if failed {
                self.rows.push(Row {
                    area: area_of(&test).to_owned(),
                    what: "the test".to_owned(),
                    figure: "failed".to_owned(),
                    by: test.clone(),
                    failed,
                });
            }
            self.test = Some((test, failed));
            return;
        }
        let line = line.trim();
        if !line.is_empty() {
            line.clone_into(&mut self.last);
        }
        let Some((_, said)) = line.split_once(MARK) else {
            return;
        };
        let mut parts = said.splitn(3, " | ");
        if let (Some(area), Some(what), Some(figure)) = (parts.next(), parts.next(), parts.next()) {
            let (by, failed) = self.test.clone().unwrap_or((self.command.clone(), false));
            self.rows.push(Row {
                area: area.trim().to_owned(),
                what: what.trim().to_owned(),
                figure: figure.trim().to_owned(),
                by,
                failed,
            });
        }
    }

    /// All rows. A command that said nothing has one all the same, and so has one that failed.
    fn end(mut self, area: &str, failure: Option<String>) -> Vec<Row> {
        if self.test.is_none() && failure.is_some() {
            // No test failed, but something did.
            for row in &mut self.rows {
                row.failed = true;
            }
        }
        let is_told = match failure {
            None => !self.rows.is_empty(),
            Some(_) => self.rows.iter().any(|row| row.failed),
        };
        if !is_told {
            let last = self.last;
            self.rows.push(Row {
                area: area.to_owned(),
                what: "the command".to_owned(),
                failed: failure.is_some(),
                figure: failure.unwrap_or(last),
                by: self.command,
            });
        }
        self.rows
    }
}

/// The test that a line of nextest's is about, and whether it failed:
///
/// ```text
///         PASS [   0.012s] ( 92/201) rialto-connector::stories links::the_newest_session
/// ```
fn status_in(line: &str) -> Option<(String, bool)> {
    let (status, rest) = line.split_once(" [")?;
    let status = status.trim();
    let is_status = |c: char| c.is_ascii_uppercase() || c == '-' || c == ' ';
    if status.is_empty() || !status.chars().all(is_status) {
        return None;
    }
    let (took, rest) = rest.split_once("] ")?;
    took.strip_suffix('s')?.trim().parse::<f64>().ok()?;
    let (_, test) = rest.split_once(") ")?;
    Some((test.trim().to_owned(), !["PASS", "LEAK"].contains(&status)))
}

/// Of a test that failed before it could say it: the module that it is in, or its crate.
fn area_of(test: &str) -> &str {
    let (binary, name) = test.split_once(' ').unwrap_or((test, ""));
    match name.split_once("::") {
        Some((module, _)) => module,
        None => binary,
    }
}

/// Which tree, on what, and how much of it.
fn header(is_full: bool) -> Result<String> {
    let commit = output("git", &["rev-parse", "--short=10", "HEAD"])?;
    let status = ["status", "--porcelain", "--untracked-files=no"];
    let changed = match output("git", &status)?.is_empty() {
        true => "",
        false => ", with changes",
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    let extent = match is_full {
        true => "everything, with `--full`",
        false => "without what only `--full` runs",
    };
    Ok(format!(
        "Commit {commit}{changed}; {cores} cores, {arch}, {os}; {extent}."
    ))
}

fn page(rows: &[Row], header: &str) -> String {
    let mut rows = rows.to_vec();
    // Stable, so that the lines of one test stay in their order.
    rows.sort_by(|a, b| (&a.area, &a.by).cmp(&(&b.area, &b.by)));
    let mut text = String::from(
        "# Reliability\n\n\
         What was tried to break the node, by which test, and what came of it. `cargo xtask reliability`\n\
         runs the tests and writes this page. With `--full` it also runs what takes too long for every day:\n\
         1000 SIGKILLs of one of three nodes, a million wrong tokens, every truncation, bit and sector of a\n\
         long journal, 20,000 seeds of the simulator, and faults put into its nodes on purpose.\n\
         How books stay exact is in [the journal](design/journal.md) and\n\
         [the path of a packet](design/packet-path.md); what the simulator does is in\n\
         [the simulator](design/simulation.md).\n\n",
    );
    text += header;
    text.push('\n');
    let mut area = "";
    for row in &rows {
        if row.area != area {
            area = &row.area;
            text += &format!("\n## {area}\n\n| What was run | Figure | By |\n|---|---|---|\n");
        }
        let failed = if row.failed { "**FAILED** " } else { "" };
        let [what, figure] = [&row.what, &row.figure].map(|cell| cell.replace('|', "\\|"));
        text += &format!("| {what} | {failed}{figure} | `{}` |\n", row.by);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.31s
────────────
 Nextest run ID 0bbe4217 with nextest profile: default
    Starting 4 tests across 8 binaries
        SLOW [> 60.000s] (     1/4) rialto::e2e kill::rounds
        PASS [   0.449s] (1/4) rialto::e2e kill::rounds
  stdout ───

    running 1 test
    reliability: kill | 100 SIGKILL rounds, three nodes, BTP and HTTP | 0 units wrong
    reliability: drain | 16 SIGTERM rounds | 0 of 1 | 2 packets lost
    test kill::rounds ... ok

        PASS [   0.012s] (2/4) rialto-admin says_nothing
        FAIL [   0.112s] ( 3/4) rialto::e2e hostile::half_way
  stdout ───

    reliability: overload | ten times the load | 90.0 % refused

  stderr ───

    thread 'hostile::half_way' panicked at crates/rialto/tests/e2e/hostile.rs:11:5:
     SIGABRT [   0.5s] ( 4/4) rialto-journal::journal torture::every_bit
────────────
     Summary [   1.504s] 4 tests run: 2 passed, 2 failed, 0 skipped
error: test run failed
";

    fn collected(output: &str, failure: Option<&str>) -> Vec<String> {
        let mut collector = Collector::new("cargo nextest run");
        output.lines().for_each(|line| collector.line(line));
        let rows = collector.end("suite", failure.map(str::to_owned));
        let text = page(&rows, "Commit 0.");
        let is_row = |line: &&str| line.starts_with("## ") || line.starts_with("| ");
        let rows = text.lines().filter(is_row).map(str::to_owned);
        rows.filter(|row| !row.contains("What was run")).collect()
    }

    #[test]
    fn every_line_is_a_row_and_what_failed_is_shown_as_failed() {
        assert_eq!(
            collected(OUTPUT, Some("exit status: 100")),
            [
                "## drain",
                "| 16 SIGTERM rounds | 0 of 1 \\| 2 packets lost | `rialto::e2e kill::rounds` |",
                "## hostile",
                "| the test | **FAILED** failed | `rialto::e2e hostile::half_way` |",
                "## kill",
                "| 100 SIGKILL rounds, three nodes, BTP and HTTP | 0 units wrong | `rialto::e2e kill::rounds` |",
                "## overload",
                "| ten times the load | **FAILED** 90.0 % refused | `rialto::e2e hostile::half_way` |",
                "## torture",
                "| the test | **FAILED** failed | `rialto-journal::journal torture::every_bit` |",
            ]
        );
    }

    #[test]
    fn an_area_that_nothing_is_said_of_is_a_failure() {
        let mut collector = Collector::new("cargo nextest run");
        OUTPUT.lines().for_each(|line| collector.line(line));
        let gaps = gaps(&collector.end("suite", None));
        assert_eq!(gaps.len(), AREAS.len() - 3);
        let is_said = |area: &str| ["drain", "kill", "overload"].contains(&area);
        assert!(gaps.iter().all(|row| row.failed && !is_said(&row.area)));
    }

    #[test]
    fn a_command_is_never_dropped() {
        let seeds = "compiling\n20000 seeds from 1 passed\n";
        assert_eq!(
            collected(seeds, None),
            [
                "## suite",
                "| the command | 20000 seeds from 1 passed | `cargo nextest run` |"
            ]
        );
        for output in ["", "error: could not compile\n"] {
            assert_eq!(
                collected(output, Some("exit status: 101")),
                [
                    "## suite",
                    "| the command | **FAILED** exit status: 101 | `cargo nextest run` |"
                ]
            );
        }
        // Said before it went wrong.
        let mutants = "reliability: simulator | 15 mutants | 14 caught\n";
        assert_eq!(
            collected(mutants, Some("exit status: 1")),
            [
                "## simulator",
                "| 15 mutants | **FAILED** 14 caught | `cargo nextest run` |"
            ]
        );
        // All tests passed, and still it failed.
        let passed = OUTPUT.lines().take(11).collect::<Vec<_>>().join("\n");
        let rows = collected(&passed, Some("signal: 9"));
        assert_eq!(rows.len(), 6, "{rows:?}");
        assert!(
            rows.contains(
                &"| the command | **FAILED** signal: 9 | `cargo nextest run` |".to_owned()
            )
        );
    }
}
