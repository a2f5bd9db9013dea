//! Runs the published `ilp-node` with the configuration in the file that is named, as its own binary
//! would: that binary cannot be installed any more.

use futures::Future;
use ilp_node::InterledgerNode;

fn main() {
    let path = std::env::args()
        .nth(1)
        .expect("name a configuration in JSON");
    let file = std::fs::File::open(path).expect("the configuration can be read");
    let node: InterledgerNode =
        serde_json::from_reader(file).expect("the configuration is that of an ilp-node");
    tokio::run(node.serve().map_err(|()| std::process::exit(1)));
}
