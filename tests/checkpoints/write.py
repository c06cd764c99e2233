"""Writes the checkpoints that `test_weights_tf1.py` reads, by TensorFlow.

PYTHONPATH=tests python tests/checkpoints/write.py
"""

from pathlib import Path

import tensorflow as tf
from test_weights_tf1 import AVERAGES, MODEL, RAW

tf1 = tf.compat.v1
FOLDER = Path(__file__).parent


def write_named() -> None:
    """Three shards, of which the first has just the step; the others every dtype and slots."""
    with tf.Graph().as_default():
        tf1.train.create_global_step()
        with tf.device("/cpu:0"):
            variables = {
                name: tf1.get_variable(f"{MODEL}/{name}", initializer=value)
                for name, value in RAW.items()
            }
        with tf.device("/cpu:1"):
            for name, value in AVERAGES.items():
                tf1.get_variable(f"{MODEL}/{name}/ExponentialMovingAverage", initializer=value)
        trained = [variables[name] for name in AVERAGES]
        gradients = [(tf.zeros_like(variable), variable) for variable in trained]
        for optimizer in (
            tf1.train.RMSPropOptimizer(0.1, momentum=0.9),
            tf1.train.MomentumOptimizer(0.1, 0.9),
            tf1.train.AdamOptimizer(),
        ):
            optimizer.apply_gradients(gradients)
        with tf1.Session(config=tf1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(tf1.global_variables_initializer())
            saver = tf1.train.Saver(sharded=True)
            saver.save(session, str(FOLDER / "named"), write_meta_graph=False, write_state=False)


def write_sliced() -> None:
    """One variable in two slices."""
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable(
            f"{MODEL}/head/dense/kernel",
            (4, 2),
            initializer=tf1.ones_initializer(),
            partitioner=tf1.fixed_size_partitioner(2),
        )
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver()
        saver.save(session, str(FOLDER / "sliced"), write_meta_graph=False, write_state=False)


def write_objects() -> None:
    tf.train.Checkpoint(kernel=tf.Variable([1.0])).write(str(FOLDER / "objects"))


if __name__ == "__main__":
    write_named()
    write_sliced()
    write_objects()
