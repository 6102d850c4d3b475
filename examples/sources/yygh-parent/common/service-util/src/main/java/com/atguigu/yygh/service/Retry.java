package com.atguigu.yygh.service;

import java.io.IOException;
import java.net.ConnectException;
import java.net.UnknownHostException;
import java.net.http.HttpConnectTimeoutException;
import java.nio.channels.UnresolvedAddressException;
import java.time.Duration;
import java.util.Set;

/**
 * Repeats a call while a pod is being replaced.
 *
 * <p>A call that never reached the other side may always be repeated; one that was cut off only if doing it twice
 * is the same as doing it once.
 */
public final class Retry {

    private static final Set<String> IDEMPOTENT = Set.of("GET", "HEAD", "OPTIONS", "PUT", "DELETE");
    private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
    private static final Duration LONGEST_PAUSE = Duration.ofMillis(500);

    private final Duration patience;

    public Retry(Duration patience) {
        this.patience = patience;
    }

    @FunctionalInterface
    public interface Call<T> {
        T run() throws IOException;
    }

    public <T> T run(String method, Call<T> call) throws IOException {
        long deadline = System.nanoTime() + patience.toNanos();
        for (Duration pause = FIRST_PAUSE; ; pause = longer(pause)) {
            try {
                return call.run();
            } catch (IOException failure) {
                boolean repeatable = neverConnected(failure) || IDEMPOTENT.contains(method);
                if (!repeatable || System.nanoTime() + pause.toNanos() > deadline) {
                    throw failure;
                }
            }
            sleep(pause);
        }
    }

    private static boolean neverConnected(Throwable failure) {
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            if (cause instanceof ConnectException
                    || cause instanceof HttpConnectTimeoutException
                    || cause instanceof UnknownHostException
                    || cause instanceof UnresolvedAddressException) {
                return true;
            }
        }
        return false;
    }

    private static Duration longer(Duration pause) {
        Duration doubled = pause.multipliedBy(2);
        return doubled.compareTo(LONGEST_PAUSE) < 0 ? doubled : LONGEST_PAUSE;
    }

    private static void sleep(Duration pause) throws IOException {
        try {
            Thread.sleep(pause.toMillis());
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new IOException("interrupted while waiting to try again", interrupted);
        }
    }
}
