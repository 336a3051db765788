//! The page that tells what is taken.
