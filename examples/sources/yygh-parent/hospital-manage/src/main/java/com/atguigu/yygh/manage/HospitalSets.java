package com.atguigu.yygh.manage;

import com.atguigu.yygh.common.YyghException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;
import org.springframework.stereotype.Repository;

@Repository
class HospitalSets {

    private final Map<String, HospitalSet> sets = new ConcurrentSkipListMap<>();

    HospitalSets() {
        add("1001", "海棠市第一人民医院", true);
        add("1002", "海棠大学附属医院", true);
        add("1003", "海棠市中医医院", true);
        add("1004", "仁和儿童医院", true);
        add("1005", "海棠市妇幼保健院", true);
        add("1006", "北原区社区中心医院", false);
    }

    List<HospitalSet> all() {
        return List.copyOf(sets.values());
    }

    HospitalSet get(String hoscode) {
        HospitalSet set = sets.get(hoscode);
        if (set == null) {
            throw YyghException.notFound("医院设置", hoscode);
        }
        return set;
    }

    HospitalSet access(String hoscode, boolean open) {
        get(hoscode);
        return sets.computeIfPresent(hoscode, (same, set) -> set.access(open));
    }

    private void add(String hoscode, String name, boolean open) {
        sets.put(hoscode, new HospitalSet(hoscode, name, "信息科", open));
    }
}
