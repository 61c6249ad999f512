//! Each tier of a build, from a wiped daemon and on a living one.

use crate::world::World;

const FILES_LAST: &str = "FROM BASE\nRUN sum /deps\nCOPY src /app/src\nCMD [\"run\"]\n";

#[test]
fn a_first_build_is_cold() {
    let world = World::new(FILES_LAST);
    world.write("src/main", "one\n");
    let cold = world.build(&[]);
    assert_eq!(cold.tier(), "cold", "{:#}", cold.report);
    assert_eq!(cold.warnings(), [""; 0]);
}
