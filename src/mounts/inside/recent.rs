//! The values that were used last, by number.

/// At most so many values. A new one drives out the one that was not used for longest.
pub struct Recent<T> {
    most: usize,
    /// The last used one is the last.
    items: Vec<(u32, T)>,
}

impl<T> Recent<T> {
    /// Returns an empty collection for at most `most` values.
    pub fn new(most: usize) -> Self {
        Self { most, items: Vec::new() }
    }

    /// Returns the value of a number.
    pub fn get(&mut self, number: u32) -> Option<&T> {
        let place = self.items.iter().rposition(|(key, _)| *key == number)?;
        self.items[place..].rotate_left(1);
        self.items.last().map(|(_, value)| value)
    }

    /// Adds the value of a new number, and returns it.
    pub fn insert(&mut self, number: u32, value: T) {
        if self.items.len() >= self.most {
            self.items.remove(0);
        }
        self.items.push((number, value));
    }

    /// Removes the value of a number.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let place = self.items.iter().rposition(|(key, _)| *key == number)?;
        Some(self.items.remove(place).1)
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_value_goes_first() {
        let mut recent = Recent::new(2);
        recent.insert(1, 'a');
        recent.insert(2, 'b');
        assert_eq!(recent.get(1), Some(&'a'));
        recent.insert(3, 'c');
        assert_eq!([1, 2, 3].map(|number| recent.get(number).copied()), [Some('a'), None, Some('c')]);
        assert_eq!((recent.remove(3), recent.remove(3)), (Some('c'), None));
    }
}
