//! Shapes of networks: who is linked to whom.

use std::{fmt, str::FromStr};

use crate::rng::Rng;

/// Most nodes of a network.
pub const NODES_MAX: usize = 50;

/// How nodes are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One after the other.
    Line,
    /// A line whose ends are linked too.
    Ring,
    /// All with the first.
    Star,
    /// A random tree, and about as many further links between random pairs.
    Mesh,
}

/// A shape and a number of nodes. Its text is both, as in `ring-50`.
///
/// ```
/// let ring: rialto_sim::Topology = "ring-50".parse()?;
/// assert_eq!((ring.shape, ring.nodes), (rialto_sim::Shape::Ring, 50));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// How they are linked.
    pub shape: Shape,
    /// 2 to [`NODES_MAX`]; a ring has at least 3.
    pub nodes: usize,
}

const SHAPES: [(Shape, &str); 4] = [
    (Shape::Line, "line"),
    (Shape::Ring, "ring"),
    (Shape::Star, "star"),
    (Shape::Mesh, "mesh"),
];

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = SHAPES.iter().find(|(shape, _)| *shape == self.shape);
        let (_, word) = named.expect("all shapes have a word");
        write!(f, "{word}-{}", self.nodes)
    }
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(word, nodes)| {
            let (shape, _) = SHAPES.iter().find(|(_, named)| *named == word)?;
            let nodes = nodes.parse().ok()?;
            let nodes_min = if *shape == Shape::Ring { 3 } else { 2 };
            let is_possible = (nodes_min..=NODES_MAX).contains(&nodes);
            is_possible.then_some(Self {
                shape: *shape,
                nodes,
            })
        });
        parsed.ok_or_else(|| {
            format!(
                "'{text}' is no topology: line-N, ring-N, star-N or mesh-N, N up to {NODES_MAX}"
            )
        })
    }
}

impl Topology {
    /// Most networks are small, where most packets meet most faults; a few are large.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let (shape, _) = rng.pick(&SHAPES);
        let nodes = match rng.below(200) {
            0 => rng.between(13, NODES_MAX as u64),
            1..8 => rng.between(7, 12),
            _ => rng.between(3, 6),
        };
        let nodes = usize::try_from(nodes).expect("few nodes");
        Self { shape, nodes }
    }

    /// Pairs of nodes that are linked, each once.
    pub(crate) fn links(self, rng: &mut Rng) -> Vec<(usize, usize)> {
        let nodes = self.nodes;
        match self.shape {
            Shape::Line => (1..nodes).map(|node| (node - 1, node)).collect(),
            Shape::Ring => (0..nodes).map(|node| (node, (node + 1) % nodes)).collect(),
            Shape::Star => (1..nodes).map(|node| (0, node)).collect(),
            Shape::Mesh => {
                let mut links: Vec<_> = (1..nodes).map(|node| (rng.index(node), node)).collect();
                for _ in 0..nodes {
                    let (a, b) = (rng.index(nodes), rng.index(nodes));
                    let link = (a.min(b), a.max(b));
                    if a != b && !links.contains(&link) {
                        links.push(link);
                    }
                }
                links
            }
        }
    }
}

/// The first step of a shortest path from each node to each other: `next[from][to]`. Unlinked pairs,
/// and a node and itself, have none.
pub(crate) fn next_hops(nodes: usize, links: &[(usize, usize)]) -> Vec<Vec<Option<usize>>> {
    let mut neighbours = vec![Vec::new(); nodes];
    for (a, b) in links {
        neighbours[*a].push(*b);
        neighbours[*b].push(*a);
    }
    let from = |from: usize| {
        let mut next = vec![None; nodes];
        let mut reached: Vec<_> = neighbours[from].clone();
        reached.iter().for_each(|to| next[*to] = Some(*to));
        let mut done = 0;
        while let Some(via) = reached.get(done).copied() {
            done += 1;
            for to in &neighbours[via] {
                if *to != from && next[*to].is_none() {
                    next[*to] = next[via];
                    reached.push(*to);
                }
            }
        }
        next
    };
    (0..nodes).map(from).collect()
}

/// How many links the longest of the shortest paths has.
pub(crate) fn diameter(next: &[Vec<Option<usize>>]) -> usize {
    let length = |mut from: usize, to: usize| {
        let mut length = 0;
        while let Some(via) = next[from][to] {
            from = via;
            length += 1;
        }
        length
    };
    let pairs = (0..next.len()).flat_map(|from| (0..next.len()).map(move |to| (from, to)));
    pairs.map(|(from, to)| length(from, to)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_of_every_shape_is_reached() {
        for (text, longest) in [
            ("line-50", 49),
            ("ring-50", 25),
            ("star-50", 2),
            ("line-2", 1),
        ] {
            let topology: Topology = text.parse().unwrap();
            assert_eq!(topology.to_string(), text);
            let next = next_hops(topology.nodes, &topology.links(&mut Rng::new(1)));
            assert_eq!(diameter(&next), longest, "{text}");
        }
        for seed in 0..20 {
            let links = Topology {
                shape: Shape::Mesh,
                nodes: 50,
            }
            .links(&mut Rng::new(seed));
            let next = next_hops(50, &links);
            for (from, next) in next.iter().enumerate() {
                assert!((0..50).all(|to| (to == from) == next[to].is_none()));
            }
        }
        for text in ["ring-2", "line-51", "line", "wheel-5", "line-x"] {
            assert!(text.parse::<Topology>().unwrap_err().contains(text));
        }
    }
}
