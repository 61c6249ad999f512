//! Tests of saving and bringing in, over a store in memory.

mod damage;
mod figures;
mod hostile;
mod model;
mod random;
mod saves;
