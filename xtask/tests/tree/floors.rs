//! Which crate may use which (ARCHITECTURE.md, "Floors").

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;

use super::root;

/// The floor of each crate that the node is made of. A new crate needs a line.
const FLOORS: &[(&str, u8)] = &[
    ("rialto-packet", 0),
    ("rialto-btp", 1),
    ("rialto-ccp", 1),
    ("rialto-stream", 1),
    ("rialto-channel", 1),
    ("rialto-routing", 2),
    ("rialto-ledger", 2),
    ("rialto-connector", 2),
    ("rialto-links", 3),
    ("rialto-admin", 3),
    ("rialto-journal", 3),
    ("rialto-node", 4),
    ("rialto", 4),
];

/// They may use every floor, and no crate may use them.
const BESIDE: &[&str] = &["xtask", "rialto-bench", "rialto-sim", "letter-shop"];

/// The only edges that stay on a floor.
const SAME_FLOOR: &[(&str, &str)] = &[
    ("rialto-connector", "rialto-ledger"),
    ("rialto-connector", "rialto-routing"),
    ("rialto", "rialto-node"),
];

/// Floors up to this one are pure.
const PURE_MAX: u8 = 2;

/// Sockets, timers, threads, files, entropy of the system: nothing for a pure crate.
const IMPURE: &[&str] = &[
    "async-executor",
    "axum",
    "fs4",
    "getrandom",
    "hyper",
    "mio",
    "num_cpus",
    "parking_lot",
    "rand",
    "rayon",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "tungstenite",
];

fn floor(name: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(crate_name, _)| *crate_name == name)
        .map(|(_, floor)| *floor)
}

/// Crates, and what each uses when it is built for users: no development or build dependencies.
struct Graph {
    members: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .current_dir(root())
            .output()
            .expect("cargo starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let list = |value: &Value| value.as_array().expect("a list").clone();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();

        let packages = list(&metadata["packages"]);
        let names: BTreeMap<String, String> = packages
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let members = list(&metadata["workspace_members"]);
        let members = members.iter().map(|id| names[&text(id)].clone()).collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let used = edges.entry(names[&text(&node["id"])].clone()).or_default();
            for dependency in list(&node["deps"]) {
                if list(&dependency["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
                {
                    used.insert(names[&text(&dependency["pkg"])].clone());
                }
            }
        }
        Self { members, edges }
    }

    /// The edges that must not be, in words.
    fn forbidden(&self) -> Vec<String> {
        let mut found = Vec::new();
        for user in &self.members {
            if BESIDE.contains(&user.as_str()) {
                continue;
            }
            let Some(user_floor) = floor(user) else {
                found.push(format!("{user} has no floor"));
                continue;
            };
            for used in self.edges[user]
                .iter()
                .filter(|used| self.members.contains(*used))
            {
                let is_allowed = match floor(used) {
                    Some(used_floor) => {
                        used_floor < user_floor
                            || SAME_FLOOR.contains(&(user.as_str(), used.as_str()))
                    }
                    None => false,
                };
                if !is_allowed {
                    found.push(format!("{user} (floor {user_floor}) -> {used}"));
                }
            }
            if user_floor <= PURE_MAX {
                found.extend(self.path_to_impure(user));
            }
        }
        found
    }

    /// The shortest way from `start` to a crate of [`IMPURE`].
    fn path_to_impure(&self, start: &str) -> Option<String> {
        let mut paths = vec![vec![start]];
        let mut seen = BTreeSet::from([start]);
        while !paths.is_empty() {
            let mut longer = Vec::new();
            for path in paths {
                for used in self.edges.get(path[path.len() - 1]).into_iter().flatten() {
                    let path: Vec<&str> = path.iter().copied().chain([used.as_str()]).collect();
                    if IMPURE.contains(&used.as_str()) {
                        return Some(path.join(" -> "));
                    }
                    if seen.insert(used) {
                        longer.push(path);
                    }
                }
            }
            paths = longer;
        }
        None
    }
}

#[test]
fn dependencies_point_down_and_the_core_is_pure() {
    let forbidden = Graph::read().forbidden();
    assert!(
        forbidden.is_empty(),
        "forbidden edges:\n  {}",
        forbidden.join("\n  ")
    );
}

/// Faults that are put in on purpose must not reach a node: the simulator asks for them, alone.
#[test]
fn the_node_is_built_without_mutants() {
    let features = |package: &str| {
        let arguments = [
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal",
        ];
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .args(["--prefix", "none", "--format", "{p} [{f}]"])
            .current_dir(root())
            .output()
            .expect("cargo starts");
        let lines = String::from_utf8(output.stdout).expect("cargo prints text");
        assert!(lines.contains("rialto-ledger"), "{package} has books");
        lines
    };
    assert!(features("rialto-sim").contains("mutants"));
    for line in features("rialto").lines() {
        assert!(!line.contains("mutants"), "{line}");
    }
}

#[test]
fn a_forbidden_edge_is_named() {
    let edges = [
        ("rialto-packet", "rialto-btp"),
        ("rialto-links", "rialto-admin"),
        ("rialto-btp", "bytes"),
        ("bytes", "tokio"),
        ("rialto-node", "xtask"),
    ];
    let mut graph = Graph {
        members: BTreeSet::new(),
        edges: BTreeMap::new(),
    };
    for (user, used) in edges {
        graph
            .edges
            .entry(user.to_owned())
            .or_default()
            .insert(used.to_owned());
    }
    for name in [
        "rialto-admin",
        "rialto-btp",
        "rialto-links",
        "rialto-node",
        "rialto-packet",
        "new",
    ] {
        graph.members.insert(name.to_owned());
        graph.edges.entry(name.to_owned()).or_default();
    }
    graph.members.insert("xtask".to_owned());
    assert_eq!(
        graph.forbidden(),
        [
            "new has no floor",
            "rialto-btp -> bytes -> tokio",
            "rialto-links (floor 3) -> rialto-admin",
            "rialto-node (floor 4) -> xtask",
            "rialto-packet (floor 0) -> rialto-btp",
            "rialto-packet -> rialto-btp -> bytes -> tokio",
        ]
    );
}

/// Clippy bans clocks, threads, entropy and the order of hash tables there.
#[test]
fn pure_crates_have_the_strict_clippy_configuration() {
    let strict = fs::canonicalize(root().join("clippy-pure.toml")).expect("it is there");
    for (name, floor) in FLOORS.iter().filter(|(_, floor)| *floor <= PURE_MAX) {
        let folder = name.strip_prefix("rialto-").expect("its name begins so");
        let link = root().join("crates").join(folder).join("clippy.toml");
        let target = fs::canonicalize(&link).ok();
        assert_eq!(
            target.as_ref(),
            Some(&strict),
            "clippy.toml of {name}, floor {floor}"
        );
    }
}
