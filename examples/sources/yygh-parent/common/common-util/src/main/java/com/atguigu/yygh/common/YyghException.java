package com.atguigu.yygh.common;

/** Something a caller did that cannot be served, with the HTTP status that says so. */
public class YyghException extends RuntimeException {

    private final int status;

    private YyghException(int status, String message) {
        super(message);
        this.status = status;
    }

    public static YyghException badRequest(String message) {
        return new YyghException(400, message);
    }

    public static YyghException notFound(String what, Object id) {
        return new YyghException(404, what + "不存在: " + id);
    }

    public static YyghException conflict(String message) {
        return new YyghException(409, message);
    }

    public int status() {
        return status;
    }
}
