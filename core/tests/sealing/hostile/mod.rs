//! What a hostile relay or network may try.

mod changed;
mod floods;
mod held_back;
mod recorded;

use crate::world::World;

/// Two peers that know each other, and the relay between them.
fn relayed() -> World {
    World::acquainted(World::relayed_class())
}
