//! How much a file may cost: every cap is settable and reported by name when met.

/// Caps on what an image may make the library do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of metadata pages kept in memory by one chain. Default 64 MiB.
    pub metadata_cache_bytes: usize,
    /// Layers in one chain, the top included. Default 64.
    pub chain_depth: u32,
    /// Longest write-ahead log that is replayed, in bytes. Default 256 MiB.
    pub log_bytes: u64,
    /// Findings that a check keeps; further ones are counted only. Default 10,000.
    pub check_findings: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_cache_bytes: 64 << 20,
            chain_depth: 64,
            log_bytes: 256 << 20,
            check_findings: 10_000,
        }
    }
}
