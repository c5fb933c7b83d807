package directory

// HashFast puts parameters in that New would refuse: for tests that are about
// something else than the hash.
func (d *Directory) HashFast() {
	d.hasher.params = Argon2id{Memory: 64, Time: 1, Parallelism: 1}
	d.hasher.dummy = unmatchable(d.hasher.params)
}

// Hashes is how many hashes were computed so far.
func (d *Directory) Hashes() int64 { return d.hasher.computed.Load() }

// Most is the highest count of the limit.
func (l Limit) Most() int { return l.most() }
