//! Unpacking compressed clusters, each once for whoever reads on.
//!
//! A request for a whole cluster is unpacked right into the caller's buffer. Parts of clusters are
//! cut from clusters kept in memory, up to a budget. What unpacking needs beside that is kept as well:
//! making it anew for each cluster takes a part of the time.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use blockdev_core::{Result, Storage, StorageExt};
use libdeflater::{DecompressionError, Decompressor};
use zstd::zstd_safe::{DCtx, find_frame_compressed_size, get_error_name};

use crate::Qcow2Error;
use crate::meta::header::CompressionType;
use crate::sync::Mutex;

/// Bytes of unpacked clusters kept.
const BUDGET_BYTES: usize = 8 << 20;

/// The least number of clusters kept, however large they are.
const LEAST: usize = 2;

/// No more threads than this unpack at once without making what they need anew.
const MOST_UNPACKERS: usize = 16;

/// Unpacked clusters by the place of their packed bytes, the most recent last.
#[derive(Debug)]
pub(crate) struct Unpacked {
    compression: CompressionType,
    cluster_bytes: usize,
    kept: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
    /// Those that nobody uses now.
    unpackers: Mutex<Vec<Unpacker>>,
}

/// What unpacking needs, one thread at a time.
struct Unpacker {
    decoder: Decoder,
    /// The packed bytes.
    bytes: Vec<u8>,
}

enum Decoder {
    Zlib(Decompressor),
    Zstd(DCtx<'static>),
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

/// A compressed cluster: where its bytes are, and what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Guest offset of the cluster, for messages.
    pub(crate) guest: u64,
}

impl Unpacked {
    pub(crate) fn new(compression: CompressionType, cluster_size: u64) -> Self {
        let cluster_bytes = usize::try_from(cluster_size).expect("at most 2 MiB");
        Self {
            compression,
            cluster_bytes,
            kept: Mutex::default(),
            unpackers: Mutex::default(),
        }
    }

    /// Fills `buf` from byte `within` of the cluster `packed`, whose bytes are in `storage`.
    pub(crate) fn read(
        &self,
        storage: &dyn Storage,
        packed: Packed,
        within: usize,
        buf: &mut [u8],
    ) -> Result<()> {
        if let Some(cluster) = self.find(packed.offset) {
            buf.copy_from_slice(&cluster[within..within + buf.len()]);
            return Ok(());
        }
        if buf.len() == self.cluster_bytes {
            return self.unpack(storage, packed, buf);
        }
        let mut cluster = vec![0; self.cluster_bytes];
        self.unpack(storage, packed, &mut cluster)?;
        buf.copy_from_slice(&cluster[within..within + buf.len()]);
        self.keep(packed.offset, cluster.into());
        Ok(())
    }

    fn find(&self, offset: u64) -> Option<Arc<[u8]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest are the likeliest.
        kept.iter()
            .rev()
            .find(|(place, _)| *place == offset)
            .map(|(_, cluster)| Arc::clone(cluster))
    }

    /// Forgets the cluster whose packed bytes were at byte `offset`.
    pub(crate) fn forget(&self, offset: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(place, _)| *place != offset);
    }

    fn keep(&self, offset: u64, cluster: Arc<[u8]>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() >= (BUDGET_BYTES / self.cluster_bytes).clamp(LEAST, 64) {
            kept.pop_front();
        }
        kept.push_back((offset, cluster));
    }

    fn unpack(&self, storage: &dyn Storage, packed: Packed, cluster: &mut [u8]) -> Result<()> {
        let idle = || {
            self.unpackers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let kept = idle().pop();
        let mut unpacker = kept.unwrap_or_else(|| Unpacker::new(self.compression));
        let outcome = unpacker.unpack(storage, packed, cluster);
        let mut idle = idle();
        if idle.len() < MOST_UNPACKERS {
            idle.push(unpacker);
        }
        outcome
    }
}

impl Unpacker {
    fn new(compression: CompressionType) -> Self {
        Self {
            decoder: match compression {
                CompressionType::Zlib => Decoder::Zlib(Decompressor::new()),
                CompressionType::Zstd => Decoder::Zstd(DCtx::create()),
            },
            bytes: Vec::new(),
        }
    }

    fn unpack(&mut self, storage: &dyn Storage, packed: Packed, cluster: &mut [u8]) -> Result<()> {
        // At most 2^13 sectors, by the width of the entry's field; the last cluster of a file may be
        // cut short.
        let len = usize::try_from(packed.len).expect("at most 4 MiB");
        self.bytes.resize(len, 0);
        let there = storage.read_up_to(&mut self.bytes, packed.offset)?;
        let bytes = &self.bytes[..there];
        let outcome = match &mut self.decoder {
            Decoder::Zlib(decompressor) => inflate(decompressor, bytes, cluster),
            Decoder::Zstd(context) => unzstd(context, bytes, cluster),
        };
        outcome.map_err(|problem| {
            let Packed { offset, guest, .. } = packed;
            Qcow2Error::Compressed {
                offset,
                guest,
                problem: problem.into(),
            }
            .into()
        })
    }
}

/// Raw deflate into exactly one cluster. What follows the stream in its last sector is the next
/// cluster's, or nothing.
fn inflate(
    decompressor: &mut Decompressor,
    bytes: &[u8],
    cluster: &mut [u8],
) -> Result<(), String> {
    match decompressor.deflate_decompress(bytes, cluster) {
        Ok(written) if written == cluster.len() => Ok(()),
        Ok(written) => Err(format!("it unpacks to {written} bytes, not to a cluster")),
        Err(DecompressionError::BadData) => Err("the deflate stream is damaged".into()),
        Err(DecompressionError::InsufficientSpace) => {
            Err("it unpacks to more than a cluster".into())
        }
    }
}

/// A zstd frame into exactly one cluster. What follows it is the next cluster's, or nothing.
fn unzstd(context: &mut DCtx<'_>, bytes: &[u8], cluster: &mut [u8]) -> Result<(), String> {
    let damaged = |code| format!("the zstd frame is damaged: {}", get_error_name(code));
    // In one go, which needs no copy of what was unpacked: for that its end must be known.
    let len = find_frame_compressed_size(bytes).map_err(damaged)?;
    let frame = bytes.get(..len).unwrap_or(bytes);
    match context.decompress(cluster, frame) {
        Ok(written) if written == cluster.len() => Ok(()),
        Ok(written) => Err(format!("it unpacks to {written} bytes, not to a cluster")),
        Err(code) => Err(damaged(code)),
    }
}
