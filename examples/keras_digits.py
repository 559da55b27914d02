"""A program written for Keras, with only its imports changed: handwritten digits by a small convolutional net.

    python examples/keras_digits.py [--tiny]
"""

import argparse
import tempfile
from pathlib import Path

from fastdl import data, keras
from fastdl.keras import layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, for tests")
    tiny = parser.parse_args().tiny

    keras.utils.set_random_seed(0)
    (x_train, y_train), (x_test, y_test) = data.load_digits("train"), data.load_digits("test")
    x_train, x_test = (x.transpose(0, 2, 3, 1) for x in (x_train, x_test))  # Keras wants channels last
    y_train, y_test = (keras.utils.to_categorical(y, 10) for y in (y_train, y_test))

    model = keras.Sequential(
        [
            keras.Input(shape=(8, 8, 1)),
            layers.RandomTranslation(0.1, 0.1),
            layers.Conv2D(32, (3, 3), activation="relu", padding="same"),
            layers.BatchNormalization(),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.summary()
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=2e-3), loss="categorical_crossentropy", metrics=["accuracy"])
    path = Path(tempfile.mkdtemp()) / "digits.keras"
    model.fit(
        x_train,
        y_train,
        batch_size=32,
        epochs=2 if tiny else 25,
        validation_split=0.1,
        verbose=2,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=6, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(patience=3, factor=0.3),
        ],
    )
    model.save(path)
    loss, accuracy = keras.models.load_model(path).evaluate(x_test, y_test, verbose=0)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
