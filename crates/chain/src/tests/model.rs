//! Random chains, and what they must read as, worked out byte by byte.

use blockdev_core::{ExtentKind, Layer};
use proptest::prelude::*;

use super::sparse::{SparseLayer, Unit};
use crate::Chain;

/// Largest layer, in bytes.
pub(super) const MAX: u64 = 600;

/// How to make one layer.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    size: u64,
    grain: u64,
    /// What each unit holds, over and over.
    states: Vec<u8>,
}

impl Recipe {
    fn layer(&self) -> SparseLayer {
        let layer = SparseLayer::new(self.size, self.grain);
        for unit in 0..self.size.div_ceil(self.grain) {
            let index = usize::try_from(unit).unwrap() % self.states.len();
            let start = unit * self.grain;
            let len = usize::try_from(self.grain.min(self.size - start)).unwrap();
            match self.states[index] {
                0..100 => {}
                100..140 => layer.set(unit, Unit::Zero),
                byte => {
                    // No two neighbours alike, so that a shifted read shows.
                    let bytes = (1..=u8::MAX).cycle().skip(byte.into()).take(len);
                    layer.set(unit, Unit::Data(bytes.collect()));
                }
            }
        }
        layer
    }
}

fn recipe(least: u64) -> impl Strategy<Value = Recipe> {
    let grain = prop::sample::select(vec![1, 3, 8, 16, 50, 64, 200]);
    let states = prop::collection::vec(any::<u8>(), 1..40);
    (least..=MAX, grain, states).prop_map(|(size, grain, states)| Recipe {
        size,
        grain,
        states,
    })
}

/// One to six layers, the top not empty.
pub(super) fn chains() -> impl Strategy<Value = Vec<Recipe>> {
    let parents = prop::collection::vec(recipe(0), 0..6);
    (recipe(1), parents).prop_map(|(top, mut all)| {
        all.insert(0, top);
        all
    })
}

/// What one byte of a chain is: its kind, the layer that decides it, and its value.
pub(super) type Byte = (ExtentKind, u32, u8);

fn byte(layers: &[SparseLayer], offset: u64) -> Byte {
    let mut depth = 0;
    for (at, layer) in (0..).zip(layers) {
        if offset >= layer.info.size {
            return (ExtentKind::Absent, depth, 0);
        }
        depth = at;
        let (kind, value) = layer.byte(offset);
        if kind != ExtentKind::Absent {
            return (kind, depth, value);
        }
    }
    (ExtentKind::Absent, depth, 0)
}

/// The chain made by `recipes`, its top writable or not, and its content.
pub(super) fn make(recipes: &[Recipe], writable: bool) -> (Chain, Vec<Byte>) {
    make_writable(recipes, usize::from(writable))
}

/// The same with so many layers writable, from the top.
pub(super) fn make_writable(recipes: &[Recipe], writable: usize) -> (Chain, Vec<Byte>) {
    let layers: Vec<_> = recipes.iter().map(Recipe::layer).collect();
    let bytes = (0..recipes[0].size).map(|offset| byte(&layers, offset));
    let bytes = bytes.collect();
    let layers = (0..)
        .zip(layers)
        .map(|(depth, layer)| match depth < writable {
            true => layer.writable(),
            false => layer,
        });
    let boxed: Vec<Box<dyn Layer>> = layers.map(SparseLayer::boxed).collect();
    (Chain::from_layers(boxed).unwrap(), bytes)
}
