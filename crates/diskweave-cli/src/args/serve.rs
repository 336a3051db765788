//! Arguments of `serve`, named as those of `qemu-nbd` where it has the like.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::Image;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) image: Image,
    /// Let clients read only, as is so anyway
    #[arg(short, long, conflicts_with = "writable")]
    read_only: bool,
    /// Let clients write
    #[arg(long, conflicts_with = "force_share")]
    pub(crate) writable: bool,
    /// The unix socket to make, for its owner alone
    #[arg(
        short = 'k',
        long,
        value_name = "PATH",
        required_unless_present_any = ["bind", "port"],
        conflicts_with_all = ["bind", "port"]
    )]
    pub(crate) socket: Option<PathBuf>,
    /// The address to listen at by TCP, where whoever reaches it is served; 127.0.0.1 if only a port
    /// is said
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
    /// The port to listen at by TCP; 10809 if only an address is said
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// Name of the export, which is what clients get that say none
    #[arg(short = 'x', long, default_value = "", value_name = "NAME")]
    pub(crate) export_name: String,
    /// How many clients may be connected at once
    #[arg(short = 'e', long = "shared", default_value = "16", value_name = "N")]
    pub(crate) connections: NonZeroUsize,
    /// Go on when the last client has gone
    #[arg(short = 't', long)]
    pub(crate) persistent: bool,
}
