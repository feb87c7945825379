"""What the baselines' figures rest on. `python tests.py`"""
import os
import sys
import tempfile
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "experiments")]
import centroids  # noqa: E402
import coding  # noqa: E402
import common  # noqa: E402
import files  # noqa: E402
import maps  # noqa: E402
import run  # noqa: E402
import side_tables  # noqa: E402

RANDOM = np.random.default_rng(3)


def laplace(frames, scales):
    return np.rint(RANDOM.laplace(size=(frames, len(scales))) * scales).astype(np.int64)


class Codes(unittest.TestCase):
    def decodable(self, costs):
        """Kraft's inequality: a prefix code has words of these lengths."""
        self.assertLessEqual((2.0 ** -np.asarray(costs)).sum(), 1 + 1e-9)

    def test_tables_code_every_integer(self):
        y = laplace(5000, [0.5, 7.0])
        tables = coding.Tables(y)
        for channel in range(2):
            alone = coding.Tables(y[:, [channel]])
            costs = [alone.bits(np.array([[v]])) for v in range(-4000, 4001)]
            self.decodable(costs)
            # An escape's code uses the rest: little is left over.
            self.assertGreater((2.0 ** -np.array(costs)).sum(), 0.99)
        self.assertAlmostEqual(tables.bits(y), sum(coding.Tables(y[:, [c]]).bits(y[:, [c]]) for c in range(2)))

    def test_an_integer_that_never_occurred_has_bits(self):
        tables = coding.Tables(np.array([[0], [2]] * 50))
        for value in (-1, 1, 3):
            self.assertTrue(5 < tables.bits(np.array([[value]])) < 12)

    def test_a_bank_codes_every_integer(self):
        y = laplace(5000, [0.5, 7.0])
        mean = RANDOM.normal(size=y.shape).astype(np.float32)
        scale = np.abs(y - mean).mean(0)
        bank = common.Bank(y, mean, scale)
        for m, s in ((0.3, scale[0]), (-2.2, scale[1])):
            costs = np.array([bank.bits(np.array([[v]]), np.array([[m]]), np.array([s])) for v in range(-3000, 3001)])
            self.decodable(costs)
            self.assertGreater((2.0**-costs).sum(), 0.9)
            # No value in the table or near it is without probability.
            self.assertLess(costs[np.abs(np.arange(-3000, 3001) - np.rint(m)) <= 12 * s + 3].max(), 36)

    def test_costs_of_a_choice_code_every_integer(self):
        y = laplace(5000, [3.0])
        costs = centroids.Costs(y)(np.arange(-2000, 2001)[:, None])
        self.decodable(costs)

    def test_forms_tell_integers_apart(self):
        y = laplace(64, [1.0, 400.0, 90.0])
        other = y.copy()
        other[5, 1] += 256
        for name, form in coding.forms(y).items():
            self.assertNotEqual(form, coding.forms(other)[name], name)
        wide = coding.forms(np.array([[1, -129], [130, 2]]))
        self.assertEqual(wide["rows, bytes"], bytes([1, 128, 0x7F, 0xFF, 128, 130, 0, 2]))
        self.assertEqual(wide["planes, bytes"], bytes([1, 128, 130, 0, 128, 0x7F, 0xFF, 2]))
        self.assertEqual(wide["rows, low and high bytes apart"], bytes([1, 0x7F, 130, 2, 0, 0xFF, 0, 0]))

    def test_the_best_compressor_gets_all_frames(self):
        y = laplace(2048, np.linspace(0.3, 4, 8))
        alone, together = coding.sequences_alone(y, 128), coding.all_together(y)
        some = alone["one sequence in 8"]
        self.assertEqual(some[alone["name"]], min(some.values(), key=lambda value: value["bits"]))
        self.assertLess(abs(alone["bits"] / some[alone["name"]]["bits"] - 1), 0.1)
        self.assertEqual(together["bits"], min(value["bits"] for value in together["each"].values()))
        # Sequences that are alike cost little together.
        self.assertLess(coding.all_together(np.tile(y[:128], (16, 1)))["bits"], 0.2 * together["bits"])


class Maps(unittest.TestCase):
    def setUp(self):
        self.x = RANDOM.normal(size=(4000, 6)) @ RANDOM.normal(size=(6, 6)) + 3
        g = RANDOM.normal(size=(6, 6))
        self.s = g @ g.T

    def test_maps_are_inverse_and_channels_uncorrelated(self):
        for a, b in (maps.eigenbasis(self.x), maps.weighted_eigenbasis(self.x, self.s), maps.rotation(6)):
            self.assertTrue(np.allclose(a @ b, np.eye(6)))
        for a, b in (maps.eigenbasis(self.x), maps.weighted_eigenbasis(self.x, self.s)):
            c = np.cov((self.x @ a).T)
            self.assertLess(np.abs(c - np.diag(np.diag(c))).max(), 1e-9 * np.abs(c).max())

    def test_weighted_error_is_what_the_sensitivity_measures(self):
        a, b = maps.weighted_eigenbasis(self.x, self.s)
        raised = b @ self.s @ b.T  # an identity, up to the raised eigenvalues
        self.assertLess(np.abs(raised - np.eye(6)).max(), 0.7)
        self.assertGreater(np.trace(raised), 4)

    def test_quantised_states_come_back_within_half_a_step(self):
        mapped = maps.Mapped(self.x, self.x, maps.eigenbasis(self.x))
        step = mapped.steps([0.001])[0]
        bits, back = mapped.at(step)
        share = ((back - self.x) ** 2).sum() / ((self.x - self.x.mean(0)) ** 2).sum()
        self.assertLess(abs(share / 0.001 - 1), 0.1)
        self.assertLess(np.abs((back - self.x) @ mapped.a).max(), 0.5 * step + 1e-9)
        self.assertLess(mapped.at(2 * step)[0], bits)

    def test_rows(self):
        y, scale = maps.rows(np.array([[7.0, -3.4, 0.4], [0.07, 0.034, 0.0]]), 4)
        self.assertEqual(y.tolist(), [[7, -3, 0], [7, 3, 0]])
        self.assertTrue(np.allclose(scale[:, 0], [1, 0.01], rtol=1e-3))

    def test_levels_of_a_normal_value(self):
        # Max (1960): two bits of a standard normal value.
        self.assertTrue(np.allclose(maps.best_levels(2), [-1.510, -0.4528, 0.4528, 1.510], atol=2e-3))


class Experiments(unittest.TestCase):
    def test_before_stays_in_its_sequence(self):
        rows = np.arange(1, 7)[:, None]
        self.assertEqual(common.before(rows, np.array([0, 3]), 2)[:, 0].tolist(), [0, 0, 1, 0, 0, 4])

    def test_tables_of_tokens_find_what_a_token_means(self):
        ids = RANDOM.integers(0, 20, 6000)
        known = RANDOM.normal(size=(20, 4)) * 5
        x = known[ids] + RANDOM.normal(size=(6000, 4))
        w, gram = side_tables.additive([ids], x, 20)
        self.assertLess(np.abs(w - known).max(), 0.4)
        full = side_tables.reduced(w, gram, np.ones(4), 4)
        self.assertTrue(np.allclose(full, w))
        self.assertEqual(np.linalg.matrix_rank(side_tables.reduced(w, gram, np.ones(4), 2)), 2)
        # The rank goes where errors weigh most.
        size = np.array([1.0, 1.0, 1.0, 0.1])
        error = [np.abs((side_tables.reduced(w, gram, by, 1) - w) / size).mean() for by in (size, np.ones(4))]
        self.assertLess(error[0], 0.9 * error[1])
        ids, x = ids[:800], x[:800]
        table, others, n = side_tables.empirical_bayes(ids, x, 20)
        self.assertLess(np.abs(table - known).max(), 0.7)
        # Each frame's own mean leaves the frame out.
        mean = (side_tables.sums(ids, x, 20)[ids] - x) / (n[ids] - 1)[:, None]
        self.assertLess(np.abs(others - mean).max(), 0.2)

    def test_means_lower_the_error(self):
        x = RANDOM.laplace(size=(20000, 3)).astype(np.float32) * 0.6
        y = np.rint(x)
        back = centroids.means(x, y, np.arange(3))(y)
        self.assertLess(((x - back) ** 2).mean(), 0.95 * ((x - y) ** 2).mean())

    def test_bits_at_a_divergence(self):
        points = [{"bits": 300.0, "divergence": 0.001}, {"bits": 100.0, "divergence": 0.1}]
        self.assertAlmostEqual(run.at(points, 0.01), 200.0)
        self.assertIsNone(run.at(points, 0.5))


class Files(unittest.TestCase):
    def test_tensors_come_back(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.safetensors")
            wanted = {"hidden": RANDOM.normal(size=(3, 5)).astype("<f4"), "ids": np.arange(3)}
            files.save(path, wanted)
            found = files.load(path)
            self.assertEqual(list(found), list(wanted))
            for name, value in wanted.items():
                self.assertTrue(np.array_equal(found[name], value) and found[name].dtype == value.dtype)
            self.assertEqual(list(files.load(path, ["ids"])), ["ids"])


if __name__ == "__main__":
    unittest.main()
