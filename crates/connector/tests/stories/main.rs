//! Stories about the whole core: what happens, line by line, with the invariants of the books
//! checked after each line.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "journals of tests are short"
)]

mod node;
mod settle;
mod story;

mod accounts;
mod control;
mod durability;
mod edges;
mod expiry;
mod fulfills;
mod hand;
mod limits;
mod links;
mod messages;
mod model;
mod parent;
mod payments;
mod rates;
mod refusals;
mod routes;
mod routing;
mod statements;
mod strangers;
mod two_nodes;
