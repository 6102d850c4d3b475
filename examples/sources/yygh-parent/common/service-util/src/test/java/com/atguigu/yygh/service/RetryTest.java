package com.atguigu.yygh.service;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.ConnectException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class RetryTest {

    private final Retry retry = new Retry(Duration.ofSeconds(2));
    private final AtomicInteger calls = new AtomicInteger();

    @Test
    void repeatsWhatNeverConnectedWhateverTheMethod() throws IOException {
        assertThat(retry.run("POST", () -> answerAfter(2, new ConnectException()))).isEqualTo("ok");
        assertThat(calls).hasValue(3);
    }

    @Test
    void repeatsAReadThatWasCutOff() throws IOException {
        assertThat(retry.run("GET", () -> answerAfter(1, new IOException("reset")))).isEqualTo("ok");
        assertThat(calls).hasValue(2);
    }

    @Test
    void doesNotRepeatAWriteThatWasCutOff() {
        assertThatThrownBy(() -> retry.run("POST", () -> answerAfter(1, new IOException("reset")))).hasMessage("reset");
        assertThat(calls).hasValue(1);
    }

    @Test
    void losesPatience() {
        Retry impatient = new Retry(Duration.ofMillis(500));
        assertThatThrownBy(() -> impatient.run("GET", () -> answerAfter(1000, new ConnectException())))
                .isInstanceOf(ConnectException.class);
        assertThat(calls.get()).isBetween(2, 10);
    }

    private String answerAfter(int failures, IOException failure) throws IOException {
        if (calls.incrementAndGet() <= failures) {
            throw failure;
        }
        return "ok";
    }
}
