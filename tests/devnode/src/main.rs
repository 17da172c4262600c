//! `logos-devnode`: the development node as a program. Prints its URL, then runs until it is killed.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;
use logos_devnode::{DevNode, NodeConfig, Prices, Shape, SlotGap};

/// A development Logos node on 127.0.0.1. Not a real one: no peers, no consensus, no proofs.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Port; 0 = any that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Milliseconds between blocks; 0 = only on demand, by POST /dev/mine {"n": 1}
    #[arg(long, default_value_t = 1000)]
    block_ms: u64,
    /// Slots between blocks
    #[arg(long, default_value_t = 20, conflicts_with = "density")]
    gap: u64,
    /// Blocks come by chance, in this part of all slots
    #[arg(long)]
    density: Option<f64>,
    /// Blocks until finality
    #[arg(long, default_value_t = 30)]
    k: u64,
    /// Transactions cost fees, at the prices of genesis
    #[arg(long)]
    fees: bool,
    /// Values of the wallet's notes
    #[arg(long, value_delimiter = ',', default_value = "1000000000,1000000000,1000000000,1000000000")]
    notes: Vec<u64>,
    /// Answer as nodes of June 2026 did
    #[arg(long, conflicts_with = "fees")]
    june: bool,
    /// Start bootstrapping: nothing becomes final until POST /dev/online {"online": true}
    #[arg(long)]
    bootstrapping: bool,
    /// user:password that requests must bring
    #[arg(long)]
    auth: Option<String>,
    /// Keep the chain in this file and resume from it
    #[arg(long)]
    state: Option<PathBuf>,
    /// Chains with different numbers have nothing in common
    #[arg(long, default_value_t = 0)]
    genesis: u64,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let config = NodeConfig {
        port: options.port,
        genesis: options.genesis,
        k: options.k,
        gap: options.density.map_or(SlotGap::Fixed(options.gap), SlotGap::Density),
        block_ms: Some(options.block_ms).filter(|ms| *ms > 0),
        online: !options.bootstrapping,
        shape: if options.june { Shape::June } else { Shape::August },
        prices: if options.fees { Prices::GENESIS } else { Prices::FREE },
        notes: options.notes,
        auth: options.auth,
        state: options.state,
        ..NodeConfig::default()
    };
    let node = DevNode::start(config)?;
    println!("{}", node.url());
    io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
