//! From guest ranges to runs: what is where, one BAT page at a time.
//!
//! ```text
//!   guest     ├─ block 4 ─┼─ block 5 ─┼─ block 6 ─┼─ block 7 ─┤
//!   BAT         data 9 M    data 10 M   zero        partial 30 M
//!   runs      └── data from 9 M ─────┘└── zero ──┘└data┘└absent┘└data┘
//! ```

use blockdev_core::{Extent, ExtentKind, HostFile, HostPlace, PAGE_BYTES, Result};

use super::tables::BatPage;
use crate::image::VhdxImage;
use crate::meta::bat::{ReadSemantics, Source, bitmap_place, payload_source};
use crate::meta::bitmap;

const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

impl VhdxImage {
    /// The longest run of one kind from guest byte `offset`, at most `len` bytes. The range lies
    /// inside the disk and is not empty.
    pub(crate) fn next_run(
        &self,
        offset: u64,
        len: u64,
        semantics: ReadSemantics,
    ) -> Result<Extent> {
        let mut run = self.step(offset, len, semantics)?;
        while run.len < len {
            // What comes next may be damaged; that is for whoever asks for it.
            let Ok(next) = self.step(offset + run.len, len - run.len, semantics) else {
                break;
            };
            if !run.joins(&next) {
                break;
            }
            run.len += next.len;
        }
        Ok(run)
    }

    /// The run at `offset` as far as one page of a table tells.
    fn step(&self, offset: u64, len: u64, semantics: ReadSemantics) -> Result<Extent> {
        let geometry = self.geometry();
        let block = geometry.block_of(offset);
        let within = offset % geometry.block_size();
        let page = self.tables().bat_page(geometry.payload_index(block))?;
        let source = self
            .source(&page, block, semantics)?
            .expect("the page was asked for");
        if let Source::Partial(place) = source {
            let run = self.partial_step(offset, len.min(geometry.block_size() - within), place)?;
            let index = geometry.payload_index(block);
            let again = self.tables().bat_page(index)?;
            if again.entry(index) == page.entry(index) {
                return Ok(run);
            }
            // The block got another place between the two looks: these bits may not be its own.
            return self.step(offset, len, semantics);
        }
        let mut run = extent(source, within, geometry.block_size() - within);
        let mut last = page.entry(geometry.payload_index(block));
        let mut next = block + 1;
        while run.len < len {
            let entry = page.entry(geometry.payload_index(next));
            if entry.is_some() && entry == last && run.host.is_none() {
                // Blocks without a place are mostly like their neighbours: nothing to decide anew.
                run.len += geometry.block_size();
                next += 1;
                continue;
            }
            last = entry;
            match self.source(&page, next, semantics) {
                Ok(Some(source)) => {
                    let whole = extent(source, 0, geometry.block_size());
                    if matches!(source, Source::Partial(_)) || !run.joins(&whole) {
                        break;
                    }
                    run.len += whole.len;
                    next += 1;
                }
                Ok(None) => {
                    if run.kind == ExtentKind::Absent && page.is_zero() {
                        let index = self.tables().skip_hole(page.end())?;
                        let from = geometry.first_block_from(index);
                        run.len += from
                            .saturating_sub(next)
                            .saturating_mul(geometry.block_size());
                    }
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(run.cut(len))
    }

    /// Where payload block `block` comes from; `None` when its entry is not in `page`.
    pub(crate) fn source(
        &self,
        page: &BatPage,
        block: u64,
        semantics: ReadSemantics,
    ) -> Result<Option<Source>> {
        let geometry = self.geometry();
        let index = geometry.payload_index(block);
        let Some(entry) = page.entry(index) else {
            return Ok(None);
        };
        let needed = geometry.block_len(block);
        let entry_offset = self.tables().entry_offset(index);
        let source = payload_source(entry, entry_offset, block, needed, self.frame(), semantics)?;
        Ok(Some(source))
    }

    /// The run at `offset` of a partially present block that lies at `place`, as far as one page of
    /// its sector bitmap tells and no further than `len` bytes, which end inside the block.
    fn partial_step(&self, offset: u64, len: u64, place: u64) -> Result<Extent> {
        let geometry = self.geometry();
        let chunk = geometry.chunk_of(geometry.block_of(offset));
        let index = geometry.bitmap_index(chunk);
        let page = self.tables().bat_page(index)?;
        let entry = page.entry(index).expect("the page was asked for");
        let entry_offset = self.tables().entry_offset(index);
        let bitmap = bitmap_place(entry, entry_offset, chunk, self.frame().file_len)?;

        let bit = geometry.bitmap_bit(offset);
        let bits = self.tables().page_at(bitmap + bit / 8)?;
        let sector = geometry.logical_sector_size();
        let into_sector = offset % sector;
        let most = (into_sector + len)
            .div_ceil(sector)
            .min(PAGE_BITS - bit % PAGE_BITS);
        let as_index = |bits: u64| usize::try_from(bits).expect("bits of a page");
        let (present, sectors) = bitmap::run(&*bits, as_index(bit % PAGE_BITS), as_index(most));
        let run = (sectors as u64 * sector - into_sector).min(len);
        let source = if present {
            Source::Data(place)
        } else {
            Source::Absent
        };
        Ok(extent(source, offset % geometry.block_size(), run))
    }
}

/// `len` bytes that begin `within` bytes into a block from `source`.
fn extent(source: Source, within: u64, len: u64) -> Extent {
    match source {
        Source::Absent => Extent::new(ExtentKind::Absent, len),
        Source::Zero => Extent::new(ExtentKind::Zero, len),
        Source::Data(place) | Source::Partial(place) => {
            let host = HostPlace {
                file: HostFile::Image,
                offset: place + within,
            };
            Extent {
                host: Some(host),
                ..Extent::new(ExtentKind::Data, len)
            }
        }
    }
}
