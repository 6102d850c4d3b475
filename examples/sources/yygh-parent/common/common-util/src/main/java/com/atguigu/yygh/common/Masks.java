package com.atguigu.yygh.common;

/** Hides the middle of what must not be shown whole. */
public final class Masks {

    private Masks() {
    }

    /** {@code 13800000000} becomes {@code 138****0000}. */
    public static String phone(String phone) {
        if (phone.length() < 8) {
            return "****";
        }
        return phone.substring(0, 3) + "****" + phone.substring(phone.length() - 4);
    }
}
