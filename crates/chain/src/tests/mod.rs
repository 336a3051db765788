//! What chains must do, shown on layers and files made for the purpose.

mod building;
mod declared;
mod fake;
mod hints;
mod linkage;
mod model;
mod moving;
mod policy;
mod reading;
mod rings;
mod sparse;
mod writing;
