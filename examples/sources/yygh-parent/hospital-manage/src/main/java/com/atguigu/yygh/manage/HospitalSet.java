package com.atguigu.yygh.manage;

/** How a hospital is connected; only an open one may publish schedules. */
record HospitalSet(String hoscode, String name, String contact, boolean open) {

    HospitalSet access(boolean allowed) {
        return new HospitalSet(hoscode, name, contact, allowed);
    }
}
